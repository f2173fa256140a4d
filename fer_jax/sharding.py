"""The device mesh: one axis, `data`, over which batches are spread; everything else is replicated."""

import contextlib

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fer_jax.errors import UserError


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh over the first `devices` local devices, all of them if 0.

    On CPU JAX is asked for that many devices, each a share of the cores, where it has not started yet: two devices of
    one core each train a ResNet-18 at 64 px 1.3 times as fast as one of two cores. `axis_types` is explicit because
    its default differs between JAX releases.

    Raises:
      UserError: there are fewer.
    """
    if devices > 0:
        with contextlib.suppress(RuntimeError):  # JAX has started: its devices are what they are
            jax.config.update('jax_num_cpu_devices', devices)
    available = jax.devices()
    if not 0 <= devices <= len(available):
        raise UserError(f'parallel.devices={devices}, but {len(available)} are here; give 0 for all of them')
    chosen = available[: devices or len(available)]
    return Mesh(np.asarray(chosen), ('data',), axis_types=(AxisType.Auto,))


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


def batch(mesh: Mesh) -> NamedSharding:
    """The leading axis is cut over the devices."""
    return NamedSharding(mesh, PartitionSpec('data'))


def check_batch(mesh: Mesh, batch_size: int, microbatches: int = 1, *, where: str = '') -> None:
    """Raises UserError where `batch_size` cannot be cut evenly into microbatches and over the mesh."""
    parts = mesh.size * microbatches
    if batch_size <= 0 or batch_size % parts:
        cut = f'{microbatches} microbatches on ' if microbatches > 1 else ''
        raise UserError(
            f'{where}data.batch_size={batch_size} cannot be spread over {cut}{mesh.size} devices; '
            f'give a positive multiple of {parts}'
        )
