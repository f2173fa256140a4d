"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A wrong input. The message names the thing, its value and the remedy; `main` prints it and exits with 2."""
