"""What a field of a config is: its place, its default, what it may hold, and one line of help."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fer_jax.utils.choices import nearest
from fer_jax.utils.limits import CONFIG_VALUES, PATH_CHARACTERS
from fer_jax.utils.patterns import compile_pattern

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80
SHORT.maxlist = SHORT.maxtuple = SHORT.maxdict = 8
MANY_CHOICES = 10  # choices, of which the two nearest to a wrong one are named


class Field(NamedTuple):
    """One field of a config.

    Attributes:
      path: where it lies, with dots; `phases[i]` is each phase, `joint.<name>` each further task.
      kind: a key of `NOUNS`, or of `GROUPS` for what holds fields itself.
      default: the value that a new config has.
      help: one line that says what it is.
      low, high: the smallest and the largest number, or number of a list, that may be given.
      above, below: the same, themselves left out.
      also: further numbers that may be given, such as 0 for "off".
      choices: what may be given, where that is a short list.
      needed: whether a list has to have an entry, or a text a character.
    """

    path: str
    kind: str
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[float, ...] = ()
    choices: Sequence[Any] = ()
    needed: bool = False

    @property
    def name(self) -> str:
        """Returns the last part of the path."""
        return self.path.rpartition('.')[2]


def shown(value: Any) -> str:
    """Returns the value as Python writes it, shortened where it is long."""
    try:
        return SHORT.repr(value)
    except (ValueError, RecursionError):
        return f'a very large {type(value).__name__}'


def _in_range(field: Field, value: Any) -> bool:
    """Whether a number lies between the limits; NaN and infinity do not."""
    inside = (
        float('-inf') < value < float('inf')
        and (field.low is None or value >= field.low)
        and (field.high is None or value <= field.high)
        and (field.above is None or value > field.above)
        and (field.below is None or value < field.below)
    )
    return inside or value in field.also


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_regex(value: Any) -> bool:
    try:
        return isinstance(value, str) and compile_pattern(value) is not None
    except ValueError:
        return False


def _is_list(field: Field, value: Any, entry: Callable[[Any], bool]) -> bool:
    is_list = isinstance(value, list | tuple) and field.needed <= len(value) <= CONFIG_VALUES
    return is_list and all(map(entry, value))


def _is_pair(value: Any, first: Callable[[Any], bool], second: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and first(value[0]) and second(value[1])


def fits(field: Field, value: Any) -> bool:
    """Tells whether the field may hold the value, by the field's kind, limits and choices alone."""

    def whole(entry: Any) -> bool:
        return _is_whole(entry) and _in_range(field, entry)

    def number(entry: Any) -> bool:
        return _is_number(entry) and _in_range(field, entry)

    def text(entry: Any) -> bool:
        return isinstance(entry, str) and '\0' not in entry and len(entry) <= PATH_CHARACTERS

    if field.kind == 'bool':
        return isinstance(value, bool)
    if field.kind == 'int':
        return whole(value) and (not field.choices or value in field.choices)
    if field.kind == 'float':
        return number(value)
    if field.kind == 'str':
        return text(value) and (not field.needed or value != '') and (not field.choices or value in field.choices)
    if field.kind == 'regex':
        return _is_regex(value)
    if field.kind == 'list of str':
        return _is_list(field, value, lambda entry: text(entry) and entry != '')
    if field.kind == 'list of int':
        return _is_list(field, value, whole)
    if field.kind == 'list of float':
        return _is_list(field, value, number)
    if field.kind == 'list of (str, str)':
        return _is_list(field, value, lambda entry: _is_pair(entry, text, text))
    if field.kind == 'list of (regex, float)':
        return _is_list(field, value, lambda entry: _is_pair(entry, _is_regex, number))
    if field.kind == '(smallest, largest)':
        return _is_pair(value, number, number) and value[0] <= value[1]
    if field.kind == 'choice or list of float':
        return value in field.choices if isinstance(value, str) else _is_list(field, value, number)
    raise ValueError(f'{field.path} has the kind {field.kind!r}, which has no rule')


NOUNS: Mapping[str, str] = {
    'bool': 'True or False',
    'int': 'a whole number',
    'float': 'a number',
    'str': 'a text',
    'regex': 'a regular expression (of RE2)',
    'list of str': 'a list of texts',
    'list of int': 'a list of whole numbers',
    'list of float': 'a list of numbers',
    'list of (str, str)': 'a list of pairs of texts',
    'list of (regex, float)': 'a list of pairs, each of a regular expression (of RE2) and a number',
    '(smallest, largest)': 'a pair, the smallest and the largest number',
    'choice or list of float': 'a list of numbers',
}
GROUPS: Mapping[str, str] = {
    'phases': 'a list of phases',
    'tasks': 'tasks by name',
    'fields of data': 'fields of data',
    'fields of loss': 'fields of loss',
    'fields of data.augment': 'some fields of data.augment',
}


def number_text(number: float) -> str:
    return f'{number:,}' if isinstance(number, int) else f'{number:g}'


def limits(field: Field) -> str:
    """Returns the range of the field in words: 'from 0 up to, not including, 1'; '' where there is none."""
    if field.low is not None:
        begin = f'from {number_text(field.low)}'
    else:
        begin = f'above {number_text(field.above)}' if field.above is not None else ''
    if field.high is not None:
        end = f' to {number_text(field.high)}' if field.low is not None else f', up to {number_text(field.high)}'
    else:
        end = f' up to, not including, {number_text(field.below)}' if field.below is not None else ''
    also = ''.join(f', or {number_text(number)}' for number in field.also)
    return f'{begin}{end}{also}'


def choices_text(field: Field) -> str:
    """Returns the choices of the field in one line: "sgd, adam"."""
    return ', '.join(choice if choice and isinstance(choice, str) else repr(choice) for choice in field.choices)


def expected(field: Field) -> str:
    """Returns in words what the field may hold: 'a whole number from 1 to 1,000'."""
    if field.kind in GROUPS:
        return GROUPS[field.kind]
    noun = ' '.join(filter(None, (NOUNS[field.kind], limits(field))))
    if field.needed:
        noun += ', not empty'
    if not field.choices:
        return noun
    return f'one of {choices_text(field)}' + (f', or {noun}' if field.kind == 'choice or list of float' else '')


def mistake(field: Field, value: Any, path: str) -> str | None:
    """Returns a message that says what is wrong with a value, or None where the field may hold it.

    Args:
      path: where the value lies in the config, such as 'phases[1].epochs'.
    """
    if fits(field, value):
        return None
    if isinstance(value, str) and field.choices and field.kind == 'str':
        names = [choice or "''" for choice in field.choices]
        near = 1 if len(names) <= MANY_CHOICES else 2
        return f'{path}={shown(value)} is unknown; {nearest(value[:80], names, near)} ({field.help})'
    return f'{path}={shown(value)}; expected {expected(field)} ({field.help})'
