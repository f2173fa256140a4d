"""Regular expressions that users give, in an engine that takes linear time for every one of them."""

from typing import Any

import re2

from fer_jax.utils import limits

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = limits.PATTERN_BYTES


def compile_pattern(pattern: str) -> Any:
    """Compiles a regular expression in the syntax of RE2, which has no look-around and no back references.

    Returns:
      An object with the methods of `re.Pattern`. Texts that are searched have to be valid Unicode.

    Raises:
      ValueError: the pattern is no such expression, or above a limit; the message is the reason.
    """
    limits.check_limit(len(pattern), limits.PATTERN_CHARACTERS, 'characters in its regular expression')
    try:
        return re2.compile(pattern, options=_OPTIONS)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise ValueError(reason.decode('utf-8', 'replace') if isinstance(reason, bytes) else str(reason)) from None
