"""Standard output and error: they outlive their readers, and what is printed steers no terminal."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_WITH_READER = False
"""True if the command is of no use once nobody reads its output."""


def end_with_reader() -> None:
    """Has what the command prints from now on end it once nobody reads it (`| head`)."""
    global _WITH_READER
    _WITH_READER = True


def outlive_readers() -> None:
    """Has output that nobody reads any more go nowhere: `search | head` works on to its end.

    A character that the terminal's encoding lacks is shown escaped, and so is one that steers a
    terminal: names of files hold anything.
    """
    global _WITH_READER
    _WITH_READER = False
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")
        if stream is getattr(sys, f"__{name}__"):
            file = _Output(stream.fileno(), "w", closefd=False)
            patient = _Escaping(
                io.BufferedWriter(file),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
            )
            setattr(sys, name, patient)


def escaped(text: str, newlines: bool = True) -> str:
    """The text with characters that steer a terminal shown as in Python (`\\x1b`).

    Args:
        text: a name, a sentence, or lines of them.
        newlines: whether an end of line is such a character, as within a name.
    """
    steering = _STEERING if newlines else _STEERING_WITHIN_LINES
    return steering.sub(lambda found: ascii(found[0])[1:-1], text)


def unescaped(stream: TextIO) -> TextIO:
    """The same stream for what escapes names itself and steers the terminal on purpose."""
    return cast(TextIO, _Unescaped(stream)) if isinstance(stream, _Escaping) else stream


# Control characters, and those that turn the direction of writing or end lines elsewhere.
_OTHERS = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_STEERING = re.compile(f"[\x00-\x1f{_OTHERS}]")
_STEERING_WITHIN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_OTHERS}]")


class _Escaping(io.TextIOWrapper):
    """A stream on which nothing but ends of lines and tabs steers a terminal."""

    def write(self, text: str, /) -> int:
        return super().write(escaped(text, newlines=False))


class _Unescaped:
    def __init__(self, stream: _Escaping) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return io.TextIOWrapper.write(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output(io.FileIO):
    """A standard stream's file; nowhere, once its reader or its terminal is gone."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if _WITH_READER or not self._has_lost_reader(error):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return super().write(data)

    def _has_lost_reader(self, error: OSError) -> bool:
        # A terminal whose line has dropped.
        hung_up = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
        return hung_up or error.errno == errno.EPIPE
