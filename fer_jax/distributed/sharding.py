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
    """Returns a mesh over the first `devices` devices, or over all of them if 0.

    On CPU, JAX is asked for that many devices, each a share of the cores, where it has not started yet: two devices of
    one core each score a ResNet-18 at 64 px 1.3 times as fast as one of two cores. `axis_types` is explicit because
    its default differs between JAX releases.

    Raises:
      UserError: there are fewer devices, some processes would have none, or not all processes have the same number.
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
        listing = ', '.join(f'{count} in process {index}' for index, count in sorted(shares.items())[:16])
        raise UserError(
            f'not all processes have as many devices: {listing}; start them on machines of one kind, as many GPUs each'
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
    """Returns a mesh over the largest number of devices that divides `batch_size`.

    Evaluation uses it: the devices need not be those that the run was trained on.
    """
    count = len(jax.devices())
    return make_mesh(next(devices for devices in range(count, 0, -1) if batch_size % devices == 0))


def computes_bfloat16(device: jax.Device) -> bool:
    """Tells whether a device computes in bfloat16; NVIDIA GPUs do from compute capability 8.0 on, so no T4 and no V100.

    On other devices XLA would convert before and after every operation.
    """
    capability = str(getattr(device, 'compute_capability', ''))
    major = capability.partition('.')[0]
    return not major.isdecimal() or int(major) >= 8


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that places the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding that cuts one axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))


def optimizer(mesh: Mesh, how: str, state: Any) -> Any:
    """Returns the shardings of an optimizer's state.

    Args:
      how: 'replicated', or 'sharded' (ZeRO-1, Rajbhandari et al. 2020): each leaf is cut along its longest axis that
        the mesh divides evenly, and leaves without such an axis are replicated.
      state: tree of the shapes of the state.
    """

    def place(leaf: Any) -> NamedSharding:
        even = [axis for axis, length in enumerate(leaf.shape) if length and length % mesh.size == 0]
        if how == 'replicated' or not even:
            return replicated(mesh)
        axis = max(even, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))

    return jax.tree.map(place, state)


def put(tree: Any, where: Sharding) -> Any:
    """Places a tree of arrays on devices, as `jax.device_put` does, also on devices of several processes.

    Args:
      tree: the same whole tree in every process.
      where: sharding of all leaves.
    """
    if where.is_fully_addressable:
        return jax.device_put(tree, where)

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == where:
            return leaf
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

    return jax.tree.map(place, tree)


def own_rows(mesh: Mesh, count: int) -> slice:
    """Returns the rows of a batch of `count` that lie on the devices of this process."""
    own = [index for index, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    return slice(own[0] * count // mesh.size, (own[-1] + 1) * count // mesh.size)


def put_rows(rows: Any, mesh: Mesh, axis: int = 0) -> Any:
    """Assembles a batch on all devices from the rows that each process has.

    Args:
      rows: tree of arrays, the rows of this process (see `own_rows`).
      axis: the axis that is cut over the devices.
    """
    return jax.make_array_from_process_local_data(batch(mesh, axis), rows)


def check_batch(mesh: Mesh, batch_size: int, microbatches: int = 1, *, where: str = '') -> None:
    """Checks that `batch_size` can be cut evenly into microbatches and over the mesh.

    Args:
      where: prefix of the config key in the message, such as that of a task.

    Raises:
      UserError: it cannot be cut evenly.
    """
    parts = mesh.size * microbatches
    if batch_size % parts:
        cut = f'{microbatches} microbatches on ' if microbatches > 1 else ''
        raise UserError(
            f'{where}data.batch_size={batch_size} cannot be spread over {cut}{mesh.size} devices; '
            f'give a multiple of {parts}'
        )
