"""The one exception for input a user can mend."""


class InputError(ValueError):
    """Bad input: the message names what and where, what was found, and how to mend it.

    The shell prints it as one line and exits with code 2; in Python it is a `ValueError`.
    """
