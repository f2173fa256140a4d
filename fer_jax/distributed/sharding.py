"""The device mesh: one axis, `data`, over which batches are spread, and the optimizer's state where that is asked for.

Everything else is replicated. The devices are those of all processes, each process's side by side.
"""

import contextlib
import os
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from fer_jax.distributed import processes
from fer_jax.errors import UserError


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh over the first `devices` devices, all of them if 0.

    On CPU JAX is asked for that many devices, each a share of the cores, where it has not started yet: two devices of
    one core each score a ResNet-18 at 64 px 1.3 times as fast as one of two cores. `axis_types` is explicit because
    its default differs between JAX releases.

    Raises:
      UserError: there are fewer, some processes would have none, or not all have as many.
    """
    if devices > 0:
        own = max(devices // processes.count(), 1)
        if own > 1:
            # A collective holds one of XLA's threads until all devices have come to it. With as many threads as cores,
            # those that wait can be all there are: what the last device has to do first is then never done.
            os.environ.setdefault('NPROC', str((os.cpu_count() or 1) + own))
        with contextlib.suppress(RuntimeError):  # JAX has started: its devices are what they are
            jax.config.update('jax_num_cpu_devices', own)
    available = jax.devices()
    if not 0 <= devices <= len(available):
        raise UserError(f'parallel.devices={devices}, but {len(available)} are here; give 0 for all of them')
    if devices not in (0, len(available)) and jax.process_count() > 1:
        raise UserError(
            f'parallel.devices={devices}, but {jax.process_count()} processes have {len(available)}; give 0 for all'
        )
    shares = Counter(device.process_index for device in available)
    if len(set(shares.values())) > 1:
        told = ', '.join(f'{count} in process {index}' for index, count in sorted(shares.items())[:16])
        raise UserError(
            f'not all processes have as many devices: {told}; start them on machines of one kind, as many GPUs each'
        )
    chosen = available[: devices or len(available)]
    mesh = Mesh(np.asarray(chosen), ('data',), axis_types=(AxisType.Auto,))
    if processes.count() > 1:
        _connect(mesh)
    return mesh


def _connect(mesh: Mesh) -> None:
    """All meet on the devices while all are here: gloo connects at the first collective, and soon gives up."""
    ones = put_rows(np.ones(mesh.size // processes.count(), np.int32), mesh)
    add = jax.jit(jnp.sum, out_shardings=replicated(mesh)).lower(ones).compile()
    processes.barrier()
    jax.block_until_ready(add(ones))


def mesh_for(batch_size: int) -> Mesh:
    """A mesh over as many local devices as cut a batch evenly: a run is evaluated on whatever is here."""
    count = len(jax.devices())
    return make_mesh(next(devices for devices in range(count, 0, -1) if batch_size % devices == 0))


def computes_bfloat16(device: jax.Device) -> bool:
    """Whether it has arithmetic for bfloat16: NVIDIA's have from compute capability 8.0 on, so no T4 and no V100.

    XLA would convert back and forth around every operation of the others.
    """
    capability = str(getattr(device, 'compute_capability', ''))
    major = capability.partition('.')[0]
    return not major.isdecimal() or int(major) >= 8


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """One axis is cut over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))


def optimizer(mesh: Mesh, how: str, state: Any) -> Any:
    """Where the optimizer's state lives: everywhere, or cut along each leaf's longest axis that the mesh divides.

    Args:
      how: 'replicated' or 'sharded' (ZeRO-1, Rajbhandari et al. 2020). Leaves that cannot be cut evenly stay whole.
      state: its shapes.
    """

    def place(leaf: Any) -> NamedSharding:
        even = [axis for axis, length in enumerate(leaf.shape) if length and length % mesh.size == 0]
        if how == 'replicated' or not even:
            return replicated(mesh)
        axis = max(even, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))

    return jax.tree.map(place, state)


def put(tree: Any, where: Sharding) -> Any:
    """As `jax.device_put`, also onto the devices of several processes, all of which have the whole tree."""
    if where.is_fully_addressable:
        return jax.device_put(tree, where)

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == where:
            return leaf
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

    return jax.tree.map(place, tree)


def own_rows(mesh: Mesh, count: int) -> slice:
    """Which rows of a batch of `count` lie on this process's devices."""
    own = [at for at, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    return slice(own[0] * count // mesh.size, (own[-1] + 1) * count // mesh.size)


def put_rows(rows: Any, mesh: Mesh, axis: int = 0) -> Any:
    """A batch, of which every process has its own rows, on all devices.

    Args:
      rows: a tree of arrays; `axis` is cut over the devices.
    """
    return jax.make_array_from_process_local_data(batch(mesh, axis), rows)


def check_batch(mesh: Mesh, batch_size: int, microbatches: int = 1, *, where: str = '') -> None:
    """Raises UserError where `batch_size` cannot be cut evenly into microbatches and over the mesh."""
    parts = mesh.size * microbatches
    if batch_size % parts:
        cut = f'{microbatches} microbatches on ' if microbatches > 1 else ''
        raise UserError(
            f'{where}data.batch_size={batch_size} cannot be spread over {cut}{mesh.size} devices; '
            f'give a multiple of {parts}'
        )
