"""The one exception that means "the user can mend this": plain text, no traceback."""


class UserError(Exception):
    """A mistake in the user's input or surroundings.

    The message is one clear sentence: what is wrong, where, and the way out. The command line
    prints it as it is and exits with status 2.
    """


class StorageError(UserError):
    """A disk that is full, read-only or gone: nothing is wrong with what was to be written."""


def first_line(error: BaseException) -> str:
    """What an exception of others says, in one line; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
