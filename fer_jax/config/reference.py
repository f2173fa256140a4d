"""The schema as text: the output of `--help_config`, and the page docs/reference/config.md.

python -m fer_jax.config.reference >docs/reference/config.md
"""

from collections.abc import Iterator

from fer_jax.config.field import GROUPS, Field, choices_text, limits
from fer_jax.config.schema import FIELDS, SECTIONS, SHARED, section_of

INTRODUCTION = f"""\
# Config fields

This page is generated from the schema in `fer_jax/config/` (`python -m fer_jax.config.reference`). `fer-jax train
--help_config` prints the same fields. Every config is checked against the schema before anything is read or written.

Set a field in a config file (`config.data.batch_size = 32`) or on the command line (`--config.data.batch_size=32`,
`--config.phases[1].epochs=8`).

- `phases[i]` is each phase. `phases[i].augment` may hold any field of `data.augment`. If it is empty, the phase uses
  `data.augment`.
- `joint.<name>` is each further task. Its `loss` has the fields of `loss`. Its `data` has the fields of `data` except
  {', '.join(SHARED[:-1])} and {SHARED[-1]}.

These pages explain how the fields work together: [phases and freezing](../how-to/freeze.md),
[optimizer and loss](../how-to/optimize.md), [several tasks](../how-to/multi_task.md), [data sets](datasets.md),
[the feature cache](../explanation/feature_cache.md), [clusters](../tutorials/cluster.md).
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
    """Returns the Markdown of docs/reference/config.md."""
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


if __name__ == '__main__':
    print(page(), end='')
