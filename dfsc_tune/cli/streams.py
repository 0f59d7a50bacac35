"""Standard output and error: who goes away as a reader ends no work, only what is to be read."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_WITH_READER = False
"""Whether the command is of no use once nobody reads what it prints."""


def end_with_reader() -> None:
    """Has what the command prints from now on end it once nobody reads it (`| head`)."""
    global _WITH_READER
    _WITH_READER = True


def outlive_readers() -> None:
    """Has output that nobody reads any more go nowhere: `search | head` works on to its end.

    A character that the terminal's encoding lacks is shown escaped.
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
            patient = io.TextIOWrapper(
                io.BufferedWriter(file),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
            )
            setattr(sys, name, patient)


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
