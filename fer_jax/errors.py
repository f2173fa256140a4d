"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """An error that the user can correct.

    The message names the wrong input, its value and the remedy; `main` prints it and exits with 2.
    """
