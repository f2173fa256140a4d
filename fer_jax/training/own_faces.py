"""The fields that a config leaves to be chosen: from the data, or, where a run goes on, as they were chosen before."""

import json
import re
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.config import own_faces, schema
from fer_jax.config.own_faces import Facts
from fer_jax.data import dataset
from fer_jax.data.tables.table import Table
from fer_jax.distributed import processes
from fer_jax.pretrained import locate, published_weights
from fer_jax.runs import config as run_config
from fer_jax.runs import restore
from fer_jax.runs.model_file import read_spec
from fer_jax.utils import cache
from fer_jax.utils.paths import user_path


def settle(config: Mapping[str, Any], workdir: str | Path, given: Table | None = None) -> dict[str, Any]:
    """Chooses the fields that `auto` lists, where they have their default, and prints what it chose and why.

    Args:
      config: checked config.
      workdir: folder of the run, or of the runs of its folds or seeds; where it holds one, its fields are taken. ''
        for a new folder.
      given: the data of the primary task, in place of those that the config names.

    Returns:
      The config, with an empty `auto`.

    Raises:
      UserError: the data cannot be read.
    """
    settled: dict[str, Any] = json.loads(json.dumps(config))
    if not config['auto']:
        return settled
    settled['auto'] = []
    folder = user_path(workdir)
    earlier = [*folder.glob('config.json'), *sorted(folder.glob('*/config.json'))] if workdir else []
    if earlier:
        before = dict(run_config.flat(run_config.read_run_config(earlier[0].parent)))
        known = {path: before.get(path, 0.0) for path in config['auto'] if path in before or path.endswith('].epochs')}
        _set_defaults(settled, config['auto'], known)
        _drop_empty_phases(settled)
        _print(f'{workdir} goes on with the fields that were chosen when it began')
        return settled
    facts = facts_of(config, given)
    people = 'people unknown' if facts.people is None else f'{facts.people:,} people'
    lines = [f'chosen for {facts.images:,} images, {people}, {facts.classes} classes (a flag overrides each):']
    for choice in own_faces.choose(facts):
        changed = _set_defaults(settled, config['auto'], choice.fields)
        listed = ', '.join(f'{path}={value}' for path, value in changed.items())
        text = f'- {choice.reason}{": " if listed else ""}{listed}'
        lines.append(textwrap.fill(text, 120, subsequent_indent='  ', break_long_words=False, break_on_hyphens=False))
    _drop_empty_phases(settled)
    _print('\n'.join(lines))
    return settled


def _print(text: str) -> None:
    if processes.is_main_process():
        print(text)


def facts_of(config: Mapping[str, Any], given: Table | None = None) -> Facts:
    """Counts the images, people and classes of the primary task's data.

    Raises:
      UserError: the data cannot be read.
    """
    import jax

    data = config['data']
    places = {name: data[name] for name in ('name', 'dir', 'manifest', 'subject')}
    table = given or dataset.open_table(**places, root=cache.root() / 'datasets')
    table = table.take(np.flatnonzero(table.labels >= 0))
    known = len(table) and table.subjects.all()
    (lite0,) = (known for known in published_weights.PUBLISHED if known.model == 'efficientnet_lite0')
    release = read_spec(restore.resolve_workdir(restore.RELEASE))
    return Facts(
        images=len(table),
        people=len(np.unique(table.subjects)) if known else None,
        classes=len(np.unique(table.labels)),
        own_train=None if set(table.splits) == {'all'} else int((table.splits == 'train').sum()),
        lite0=locate.installed_file(lite0) is not None,
        release=(release.name, release.image_size, release.channels),
        accelerator=jax.default_backend() != 'cpu',
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _drop_empty_phases(config: dict[str, Any]) -> None:
    """Removes the phases for which 0 epochs are chosen."""
    config['phases'] = [phase for phase in config['phases'] if phase['epochs']]


def _set_defaults(config: dict[str, Any], listed: Collection[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Sets those fields that are listed, exist and have their default; returns them."""
    changed = {}
    present = dict(run_config.flat(config))
    for path, value in fields.items():
        field = schema.field_at(path)
        if (
            field is None
            or path not in listed
            or path not in present
            or present[path] not in (field.default, _plain(field.default))
        ):
            continue
        *groups, name = re.split(r'\.|\[|\]\.', path)  # 'phases[0].epochs' -> phases, 0, epochs
        place: Any = config
        for group in groups:
            place = place[int(group) if group.isdecimal() else group]
        place[name] = changed[path] = value
    return changed
