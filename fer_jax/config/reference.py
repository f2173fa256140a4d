"""The schema as text: what `--help_config` prints, and the page docs/config.md."""

from collections.abc import Iterator

from fer_jax.config.field import GROUPS, Field, choices_text, limits
from fer_jax.config.schema import FIELDS, SECTIONS, SHARED, section_of

INTRODUCTION = f"""\
# Every field of a config

This page is written by `fer_jax.config.reference.page` from the schema in `fer_jax/config/`, which is also what
`python -m fer_jax.main --help_config` prints, where the defaults come from, and what a config is checked against before
anything is read or written.

A field is set in a config file (`config.data.batch_size = 32`) or on the command line (`--config.data.batch_size=32`,
`--config.phases[1].epochs=8`). `phases[i]` is each phase, `joint.<name>` each further task: its `data` has the fields
of `data` but {', '.join(SHARED[:-1])} and {SHARED[-1]}, its `loss` those of `loss`. `phases[i].augment` may hold any
field of `data.augment`, and is empty for the same. How the fields work together is in [training.md](training.md),
[datasets.md](datasets.md), [feature_cache.md](feature_cache.md) and [cluster.md](cluster.md).
"""


TABLE = ('| field | type | default | meaning |', '|---|---|---|---|')


def fields_by_section() -> Iterator[tuple[str, list[Field]]]:
    """Yields (heading, fields) of each section."""
    for section, heading in SECTIONS.items():
        yield heading, [field for field in FIELDS if section_of(field) == section]


def help_text() -> str:
    """Returns the help on all fields, one line each, by section.

    A line reads 'data.batch_size  int from 1 to 1,000,000, default 64  ...'.
    """
    blocks = []
    for heading, fields in fields_by_section():
        lines = [f'  {field.path}  {allowed(field)}, default {default_text(field)}  {field.help}' for field in fields]
        blocks.append('\n'.join([heading, *lines]))
    return '\n\n'.join(blocks)


def page() -> str:
    """Returns the Markdown of docs/config.md."""
    parts = [INTRODUCTION]
    for heading, fields in fields_by_section():
        rows = [
            f'| `{field.path}` | {_cell(allowed(field))} | `{default_text(field)}` | {_cell(field.help)} |'
            for field in fields
        ]
        parts.append('\n'.join([f'## {heading}', '', *TABLE, *rows, '']))
    return '\n'.join(parts)


def allowed(field: Field) -> str:
    """Returns in short what the field may hold: 'int from 1 to 1,000,000'."""
    if field.kind in GROUPS:
        return GROUPS[field.kind]
    if field.kind == 'choice or list of float':
        return f'one of {choices_text(field)}, or list of float {limits(field)}'
    if field.choices:
        return f'one of {choices_text(field)}'
    return ' '.join(filter(None, (field.kind, limits(field)))) + (', not empty' if field.needed else '')


def default_text(field: Field) -> str:
    """Returns the default as it is written in a config file."""
    made = {'phases': '(phase(),)', 'joint.<name>.data': 'as data', 'joint.<name>.loss': 'as loss'}
    return made.get(field.path, repr(field.default))


def _cell(text: str) -> str:
    return text.replace('<', '&lt;').replace('|', '\\|')
