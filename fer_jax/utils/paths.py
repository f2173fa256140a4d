"""Paths as a user types them."""

import argparse
from pathlib import Path

from fer_jax.errors import UserError


def user_path(text: str | Path) -> Path:
    """Returns the path, with `~` and `~name` replaced by the home folder.

    Raises:
      UserError: there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f'{str(text)!r}: the home folder is not known; set HOME, or give the whole path') from None


def path_argument(text: str) -> Path:
    """Returns `user_path` of an argument; argparse names the mistake."""
    try:
        return user_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
