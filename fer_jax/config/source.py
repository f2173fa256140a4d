"""Which of the places that a config names for its data is meant: `data.dir` takes the place of the default name."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fer_jax.config.schema import field_at

PLACES = ('name', 'dir', 'manifest')


def replaced_places(config: Mapping[str, Any], given: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yields (group, field) of each place of data that another place replaces, for the data of every task."""
    groups = {'data': config['data']} | {f'joint.{name}.data': task['data'] for name, task in config['joint'].items()}
    default = field_at('data.name')
    for path, data in groups.items():
        named = [place for place in PLACES if data[place]]
        chosen = [place for place in named if f'{path}.{place}' in given]
        if len(named) > 1 and len(chosen) == 1:
            yield from ((path, place) for place in named if place not in chosen)
        elif len(named) > 1 and default is not None and data['name'] == default.default and not chosen:
            yield path, 'name'


def with_one_source(plain: dict[str, Any]) -> dict[str, Any]:
    """Sets `name` to '' in data that name another place and have the default name; returns the config."""
    for path, place in replaced_places(plain):
        group: Any = plain
        for part in path.split('.'):
            group = group[part]
        group[place] = ''
    return plain
