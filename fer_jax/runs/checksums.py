"""Whether a folder of files is what was written: sha256 of each, in a manifest beside it that is written last."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

from fer_jax.utils.atomic_files import write_text

MOST_QUARANTINED = 4


def manifest_of(folder: Path) -> Path:
    return folder.with_name(f'{folder.name}.manifest.json')


def write_checksums(folder: Path) -> None:
    """Flushes the files of `folder` to disk, then writes their manifest atomically."""
    digests = {name: _digest(folder / name, flush=True) for name in _files(folder)}
    write_text(manifest_of(folder), json.dumps(digests, indent=1))


def find_damage(folder: Path) -> str:
    """Returns a text that says how a folder differs from its manifest; '' where it does not."""
    try:
        expected = json.loads(manifest_of(folder).read_text())
    except FileNotFoundError:
        return 'it has no manifest: it was killed while it was saved, or is of an earlier version'
    except (OSError, ValueError, RecursionError) as error:
        return f'its manifest cannot be read ({error})'
    if not isinstance(expected, dict):
        return 'its manifest is damaged'
    found = _files(folder)
    for name in sorted(set(expected) | set(found)):
        if name not in expected:
            return f'{name} is not in its manifest'
        if name not in found:
            return f'{name} is missing'
        try:
            if _digest(folder / name) != expected[name]:
                return f'{name} is not what its manifest says'
        except OSError as error:
            return f'{name} cannot be read ({error.strerror})'
    return ''


def quarantine(folder: Path) -> None:
    """Moves a step and its manifest to `set_aside/`, and keeps only the newest `MOST_QUARANTINED` folders there."""
    aside = folder.with_name('set_aside')
    aside.mkdir(exist_ok=True)
    target = aside / f'{folder.name}-{time.time_ns()}'
    folder.rename(target)
    manifest = manifest_of(folder)
    if manifest.exists():
        manifest.rename(manifest_of(target))
    for old in sorted(path for path in aside.iterdir() if path.is_dir())[:-MOST_QUARANTINED]:
        shutil.rmtree(old)
        manifest_of(old).unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Returns the size of all files in a folder, in bytes."""
    return sum((folder / name).stat().st_size for name in _files(folder))


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def _digest(path: Path, *, flush: bool = False) -> str:
    with path.open('rb') as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, 'sha256').hexdigest()
