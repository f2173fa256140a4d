"""What a run records so that it can be repeated: versions, devices, data, weights."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ('fer-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-datasets', 'grain')


def usable_cores() -> int:
    """CPU cores that this process may use; results on CPU are bit-exact for one such number only."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def git_revision() -> str:
    """The commit of the source, with '+changes' where the tree differs from it; '' outside a repository."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(['git', '-C', str(source), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ''

    try:
        revision = git('rev-parse', 'HEAD')
        changed = git('status', '--porcelain', '--untracked-files=no', '--', str(source))
    except OSError:
        return ''
    return revision + ('+changes' if revision and changed else '')


def moved(path: Path, now: Mapping[str, Any]) -> str:
    """What to say of a run that began on other devices, by the environment.json it left; '' where there is nothing."""
    try:
        before = json.loads(path.read_text())
        there, here = ([facts[name] for name in ('mesh', 'processes', 'platform')] for facts in (before, now))
    except (OSError, ValueError, KeyError, TypeError):
        return ''
    if there == here:
        return ''
    known, found = (f'{mesh} {kind} devices in {count} processes' for mesh, count, kind in (there, here))
    return f'began on {known}, goes on on {found}: the same up to rounding, no longer to the bit'


def environment(*, data: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Contents of environment.json."""
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
