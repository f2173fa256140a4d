"""What has changed in the config of a run that goes on."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.runs import provenance
from fer_jax.utils import checked_files

# Another way to the same result, up to the rounding of another number of devices
FREE = ('log_every', 'data.placement', 'data.workers', 'checkpoint.keep', 'wandb')
PLACE = re.compile(r'(^|\.)data\.(name|dir|manifest)$')  # where the data lie


def check_run_config(workdir: Path, config: Mapping[str, Any], *, allow: bool = False) -> list[str]:
    """Compares `config` with that of the run in `workdir`, and returns one line for each difference that is allowed.

    More epochs in the last phase, and further phases, train a run longer. The place of the data may change as well:
    their fingerprint is compared, see `provenance.other_data`. A key that the earlier config does not have came with a
    newer version and is not compared.

    Args:
      allow: returns the differences that would make it another run as well, in place of raising UserError.

    Returns:
      The lines; none for a new run.

    Raises:
      UserError: a difference would make it another run; the message names all of them.
    """
    if not (workdir / 'config.json').is_file():
        return []
    before = dict(flat(read_run_config(workdir)))
    now = dict(flat(config))
    last = max((int(key.split('[')[1].split(']')[0]) for key in before if key.startswith('phases[')), default=0)
    recorded = 'fingerprint' in (provenance.read_environment(workdir / 'environment.json').get('data') or {})
    notes: list[str] = []
    refused: list[str] = []
    for key, old in before.items():
        if key not in now or now[key] != old:
            added = [name for name in now if name.startswith(f'{key}.')]
            line = f'{key}: {old!r} -> {now.get(key, added or "removed")!r}'
            longer = key == f'phases[{last}].epochs' and isinstance(old, int | float) and now.get(key, 0) > old
            moved = recorded and PLACE.search(key) is not None
            free = key in FREE or key.startswith('parallel.') or longer or moved
            (notes if free else refused).append(line)
    count = len(config['phases'])
    if count > last + 1:
        notes.append(f'{count - last - 1} more phases, from phases[{last + 1}] on')
    if refused and not allow:
        raise UserError(
            f'{workdir} holds a run of another config; {"; ".join(refused)}. Choose another --workdir, or set that '
            f'back (to train longer raise phases[{last}].epochs, or add a phase), or go on all the same with '
            '--allow_changes'
        )
    return refused + notes


def read_run_config(workdir: Path) -> dict[str, Any]:
    """Reads the config of the run in `workdir`.

    Raises:
      UserError: config.json cannot be read.
    """
    path = workdir / 'config.json'
    remedy = 'take it from a copy of that run, or choose another --workdir'
    try:
        config = checked_files.read_json(path, remedy)
    except FileNotFoundError:
        raise UserError(f'{path} is missing; {remedy}') from None
    if not isinstance(config.get('phases', []), list):
        raise UserError(f'{path} is damaged (it is no config); {remedy}')
    return config


def flat(tree: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a config with their paths: ('data.augment.flip', 0.5), ('phases[0].epochs', 1.0), ...

    A list of scalars and an empty mapping are one leaf each.
    """
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from flat(value, f'{prefix}.{name}' if prefix else name)
    elif isinstance(tree, Sequence) and tree and isinstance(tree[0], Mapping):
        for index, value in enumerate(tree):
            yield from flat(value, f'{prefix}[{index}]')
    else:
        yield prefix, tree
