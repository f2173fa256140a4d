"""Whether a folder of files is what was written: sha256 of each, in a manifest beside it that is written last."""

import json
import shutil
from pathlib import Path

from fer_jax.utils import bounded_files
from fer_jax.utils.atomic_files import write_text
from fer_jax.utils.checked_files import file_sha256

MOST_QUARANTINED = 4


def manifest_of(folder: Path) -> Path:
    return folder.with_name(f'{folder.name}.manifest.json')


def write_checksums(folder: Path) -> None:
    """Flushes the files of `folder` to disk, then writes their manifest atomically."""
    digests = {name: file_sha256(folder / name, flush=True) for name in _files(folder)}
    write_text(manifest_of(folder), json.dumps(digests, indent=1))


def find_damage(folder: Path) -> str:
    """Returns a text that says how a folder differs from its manifest; '' where it does not."""
    try:
        expected = bounded_files.read_json(manifest_of(folder))
    except FileNotFoundError:
        return 'it has no manifest: it was killed while it was saved, or is of an earlier version'
    except (OSError, ValueError) as error:
        return f'its manifest cannot be read ({error})'
    if not isinstance(expected, dict):
        return 'its manifest is damaged'
    files = _files(folder)
    for name in sorted(set(expected) | set(files)):
        if name not in expected:
            return f'{name} is not in its manifest'
        if name not in files:
            return f'{name} is missing'
        try:
            if file_sha256(folder / name) != expected[name]:
                return f'{name} is not what its manifest says'
        except OSError as error:
            return f'{name} cannot be read ({error.strerror})'
    return ''


def quarantine(folder: Path) -> None:
    """Moves a step and its manifest to `set_aside/`, and keeps only the newest `MOST_QUARANTINED` folders there."""
    aside = folder.with_name('set_aside')
    aside.mkdir(exist_ok=True)
    last = max((_number(path) for path in aside.iterdir()), default=0)
    target = aside / f'{folder.name}-{last + 1}'
    folder.rename(target)
    manifest = manifest_of(folder)
    if manifest.exists():
        manifest.rename(manifest_of(target))
    for old in sorted((path for path in aside.iterdir() if path.is_dir()), key=_number)[:-MOST_QUARANTINED]:
        shutil.rmtree(old)
        manifest_of(old).unlink(missing_ok=True)


def _number(path: Path) -> int:
    """The number of a folder in `set_aside`, or of its manifest; earlier versions wrote nanoseconds."""
    number = path.name.split('.')[0].rpartition('-')[2]
    return int(number) if number.isdecimal() else 0


def size(folder: Path) -> int:
    """Returns the size of all files in a folder, in bytes."""
    return sum((folder / name).stat().st_size for name in _files(folder))


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())
