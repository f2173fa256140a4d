"""Names that a config or a flag may give, and the nearest to one that is none of them."""

import difflib
from collections.abc import Collection

from fer_jax.errors import UserError


def check_choice(field: str, value: str, choices: Collection[str], *, near: int = 1) -> None:
    """Raises UserError, with the `near` nearest choices, where `value` is none of them."""
    if value not in choices:
        raise UserError(f'{field}={value!r} is unknown; {nearest(value, choices, near)}')


def nearest(value: str, choices: Collection[str], near: int = 1) -> str:
    """Returns a text that names the nearest choices and all choices: 'the nearest is adam, of sgd, adam, adamw'."""
    matches = difflib.get_close_matches(value, choices, n=near, cutoff=0.0)
    return f'the nearest {"is" if near == 1 else "are"} {" and ".join(matches)}, of {", ".join(choices)}'
