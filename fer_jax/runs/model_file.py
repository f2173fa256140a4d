"""The file model.json beside the checkpoints of a run: which network they are of."""

from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.models.network import ModelSpec
from fer_jax.utils import bounded_files, checked_files


def read_spec(workdir: Path) -> ModelSpec:
    """Reads the spec of the network whose checkpoints `workdir` holds.

    Raises:
      UserError: there is no run, or its model.json cannot be read.
    """
    path = workdir / 'checkpoints' / 'model.json'
    if not path.is_file():
        raise UserError(f'workdir={str(workdir)!r} holds no run (no {path}); give the folder that training wrote')
    remedy = 'take it from a copy of that run, or start again in another --workdir'
    checked_files.check_file(path, remedy)
    try:
        return ModelSpec.from_json(bounded_files.read_text(path))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f'{path} cannot be read ({type(error).__name__}: {error}); {remedy}') from error


def check_same(there: ModelSpec, here: ModelSpec, directory: Path) -> None:
    """Checks that the checkpoints in `directory` can be used by the network of this run.

    Args:
      there: spec of the network of these checkpoints.
      here: spec of the network of this run.

    Raises:
      UserError: name, classes, channels, head or preprocessing differ.
    """
    for field in ('name', 'classes', 'channels', 'head', 'mean', 'std', 'order'):
        old, new = getattr(there, field), getattr(here, field)
        if old != new:
            raise UserError(
                f'{directory} holds checkpoints of another model: its {field} is {_short(old)}, this run has '
                f'{_short(new)}; choose another --workdir or the config of that run'
            )


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return '; '.join(f'{task}: {", ".join(names)}' for task, names in value.items())
    return str(value)
