"""What the commands share: options, errors in one sentence, where data and results lie."""

from __future__ import annotations

import datetime
import io
import json
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dfsc_tune.errors import UserError

MODEL_HELP = "A model folder, such as results/RUN/models/CATEGORY."

DataOption = Annotated[
    str | None,
    typer.Option(
        help="Folder that holds the categories, or its address (s3://, gs://, az://); the built-in "
        "data if left out."
    ),
]
SameDataOption = Annotated[
    str | None,
    typer.Option(
        help="Where the run's data lie now, a folder or an address; as before if left out."
    ),
]
SameTeachersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        help="Where the run's teacher lies now, a weights file or a name; may be repeated; as "
        "before if left out.",
    ),
]
ResultsOption = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def check_name(name: str | None) -> str | None:
    """Refuses a run's name that is a path: it would not be found among the runs."""
    if name and Path(name).name != name:
        raise UserError(f"--name is a folder's name in --results, not a path such as '{name}'")
    return name


RunNameOption = Annotated[
    str | None, typer.Option("--name", help="The run's name.", callback=check_name)
]
SeedOption = Annotated[int, typer.Option(help="Decides all randomness.", min=0)]
DeviceOption = Annotated[str, typer.Option(help="auto (a GPU if there is one) or cpu.")]


class _Terminated(KeyboardInterrupt):
    """A SIGTERM: it ends a command as Ctrl-C does, but for the status."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


class _Group(typer.core.TyperGroup):
    """Turns what the user can mend into one sentence and status 2, Ctrl-C into 130 and SIGTERM
    into 143."""

    def invoke(self, ctx: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A name that the terminal's encoding lacks must not end a command.
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # The reader of our output has gone (`| head`): nothing is wrong.
            sys.stderr.close()
            raise typer.Exit(0) from error
        except (UserError, OSError, MemoryError) as error:
            typer.echo(f"error: {_sentence(error)}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo(str(error) or "interrupted", err=True)
            ended_by = signal.SIGTERM if isinstance(error, _Terminated) else signal.SIGINT
            raise typer.Exit(128 + ended_by) from error


def _sentence(error: Exception) -> str:
    """What is wrong, where, and the way out."""
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


def talk() -> Console:
    """The console for progress and notes: stderr, so that stdout holds data only.

    Texts hold what others say (errors, paths), so nothing in them is taken for markup.
    """
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def run_name(subject: str) -> str:
    """A run's name where the user gives none: what it is about and when it began."""
    return f"{subject}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def say_next(*words: object, before: str = "next") -> None:
    """Says on stderr which command could follow, as a shell takes it."""
    typer.echo(f"{before}: {shlex.join(['dfsc-tune', *map(str, words)])}", err=True)


def as_arguments(*values: object, **options: object) -> tuple[str, ...]:
    """A command's arguments as a user types them, without the options that are None or False."""
    words = [str(value) for value in values]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            each = value if isinstance(value, list) else [value]
            words += [word for x in each for word in (option, str(x))]
    return tuple(words)


def echo(text: str, err: bool = False) -> None:
    """Prints a line; once nobody reads it (`| head`), nothing, and the work goes on.

    For commands that print while they work: whatever else prints ends with its reader.
    """
    try:
        typer.echo(text, err=err)
    except BrokenPipeError:
        stream = sys.stderr if err else sys.stdout
        # What the stream still buffers is written again at exit: let it go nowhere, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_json(value: object) -> None:
    """Prints JSON on stdout; what is not a number becomes null."""
    echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, each as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


@contextmanager
def progress_bar(text: str, console: Console) -> Iterator[Callable[..., None]]:
    """A bar to be told (done, total) and a new text at will; one plain line without a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    if not console.is_terminal:
        console.print(f"{text} …")
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(text, total=None)

        def update(done: int, total: int, text: str | None = None) -> None:
            bar.update(task, completed=done, total=total, description=text)

        yield update


def numbers(text: str, option: str) -> tuple[int, ...]:
    """The whole numbers of an option such as 1,2,4."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise UserError(f"{option} takes numbers such as 1,2,4, not '{text}'") from error


def check_device(device: str) -> Literal["auto", "cpu"]:
    """Refuses a device that is not auto or cpu."""
    if device == "auto":
        return "auto"
    if device == "cpu":
        return "cpu"
    raise UserError(f"--device is 'auto' or 'cpu', not '{device}'")


def torch_device(device: str) -> str:
    """The device that `auto` or `cpu` means on this machine."""
    import torch

    return "cuda" if check_device(device) == "auto" and torch.cuda.is_available() else "cpu"


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
