"""What a run records so that it can be repeated: versions, devices, data, weights."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from fer_jax.utils import cache, checked_files

PACKAGES = ('fer-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-datasets', 'grain')


def usable_cores() -> int:
    """Returns the number of CPU cores that this process may use.

    Results on CPU are the same to the bit only for the same number of cores.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def git_revision() -> str:
    """Returns the commit of the source, with '+changes' where tracked files differ from it; '' outside a repository."""
    source = cache.PACKAGE

    def git(*arguments: str) -> str:
        done = subprocess.run(['git', '-C', str(source), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ''

    try:
        revision = git('rev-parse', 'HEAD')
        changed = git('status', '--porcelain', '--untracked-files=no', '--', str(source))
    except OSError:
        return ''
    return revision + ('+changes' if revision and changed else '')


def read_environment(path: Path) -> dict[str, Any]:
    """Reads environment.json of a run; returns {} where there is none.

    Raises:
      UserError: it is damaged.
    """
    remedy = 'take it from a copy of that run, or remove it: then nobody knows whether the data have changed since'
    try:
        return checked_files.read_json(path, remedy)
    except FileNotFoundError:
        return {}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns a line for each change of the environment that can change results in a continued run; none for no change.

    It compares devices and processes, the teachers' networks, and the versions of Python and packages.

    Args:
      before: the environment in which the run began.
      now: the present one.
    """
    lines = []
    there, here = ([facts.get(name) for name in ('mesh', 'processes', 'platform')] for facts in (before, now))
    if None not in there and there != here:
        known, current = (f'{mesh} {kind} devices in {count} processes' for mesh, count, kind in (there, here))
        lines.append(f'began on {known}, goes on on {current}: the same up to rounding, no longer to the bit')
    earlier, says = (facts.get('teachers', {}) for facts in (before, now))
    if isinstance(earlier, Mapping) and (
        changed := [name for name in says if earlier.get(name, says[name]) != says[name]]
    ):
        lines.append(f'began with other networks of the teachers {", ".join(changed)}: what they say has changed')
    try:
        old, new = ({'Python': facts['python'], **facts['versions']} for facts in (before, now))
    except (KeyError, TypeError):
        return lines
    if other := [f'{name} {old[name]} -> {new[name]}' for name in new if name in old and old[name] != new[name]]:
        lines.append(f'began with other versions, {", ".join(other)}: the same up to rounding, no longer to the bit')
    return lines


def other_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tells whether a task that both environments have is on data with another fingerprint."""

    def prints(facts: Mapping[str, Any]) -> dict[str, Any]:
        try:
            data = facts['data']
            return {'': data['fingerprint']} | {
                name: task['fingerprint'] for name, task in data.get('joint', {}).items()
            }
        except (KeyError, TypeError, AttributeError):
            return {}

    old, new = prints(before), prints(now)
    return any(old[name] != new[name] for name in old.keys() & new.keys())


def environment(*, data: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the contents of environment.json: versions, devices, cores, commit and XLA flags of this process.

    Args:
      data: facts about the data, such as 'fingerprint'.
      weights: facts about the weights that the run begins from, such as 'source' and 'licence'.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = ''
    devices = jax.devices()
    return {
        'python': platform.python_version(),
        'system': platform.platform(),
        'versions': versions,
        'devices': [device.device_kind for device in devices],
        'platform': devices[0].platform,
        'cpu_cores': usable_cores(),
        'git': git_revision(),
        'xla_flags': os.environ.get('XLA_FLAGS', ''),
        'data': dict(data),
        'weights': dict(weights),
    }
