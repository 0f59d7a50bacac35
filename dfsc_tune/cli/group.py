"""A group of commands: what users can mend is one sentence and status 2, signals have their own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import typer

from dfsc_tune.cli.streams import escaped, outlive_readers
from dfsc_tune.errors import UserError


class _Terminated(KeyboardInterrupt):
    """A SIGTERM: it ends a command as Ctrl-C does, but for the status."""

    number = signal.SIGTERM


class _HungUp(_Terminated):
    """A SIGHUP: the terminal is gone, as when ssh loses its line."""

    number = signal.SIGHUP


def _terminate(number: int, frame: object) -> None:
    raise _HungUp if number == signal.SIGHUP else _Terminated


def _heed_signals() -> None:
    signal.signal(signal.SIGTERM, _terminate)
    # `nohup` has it ignored.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _terminate)


class _Group(typer.core.TyperGroup):
    """Turns what the user can mend into one sentence and status 2, Ctrl-C into 130, SIGTERM into
    143 and SIGHUP into 129."""

    def invoke(self, ctx: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            _heed_signals()
        outlive_readers()
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # The reader of our output has gone (`| head`): nothing is wrong. What the stream still
            # holds is written again at exit: let it go nowhere.
            for stream in (sys.stdout, sys.stderr):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise typer.Exit(0) from error
        except (UserError, OSError, MemoryError) as error:
            typer.echo(f"error: {escaped(_sentence(error))}", err=True)
            try:
                sys.stdout.flush()
            except OSError:
                # A full disk may be what is wrong: what the stream still holds is written again
                # at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "interrupted", err=True)
            ended_by = error.number if isinstance(error, _Terminated) else signal.SIGINT
            raise typer.Exit(128 + ended_by) from error


def _sentence(error: Exception) -> str:
    """Formats an error: what is wrong, where, and the way out."""
    if isinstance(error, PermissionError):
        return (
            f"{error.filename} cannot be read or written here ({error.strerror}); change its "
            "permissions, or choose another"
        )
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if isinstance(error, MemoryError):
        return (
            f"this machine has too little memory ({error}); ask for a smaller image_size, fewer "
            "images or fewer trials"
        )
    return str(error)


def make_app(text: str) -> typer.Typer:
    """A command group with our error handling."""
    return typer.Typer(
        cls=_Group,
        help=text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
