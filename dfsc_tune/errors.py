"""The exceptions for what the user can fix; they are shown as plain text, without a traceback."""


class UserError(Exception):
    """A mistake in the user's input or surroundings.

    The message is one clear sentence: what is wrong, where, and the way out. The command line
    prints it as it is and exits with status 2.
    """


class StorageError(UserError):
    """A disk that is full, read-only or gone; the data to be written are not at fault."""


def first_line(error: BaseException) -> str:
    """Returns the first line of another library's exception, or its class name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
