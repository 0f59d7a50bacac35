"""Output of commands: data to stdout, messages and progress to stderr."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from dfsc_tune.cli.streams import escaped, unescaped


class _Console(Console):
    """Shows what would steer the terminal, in texts and in cells of tables, escaped."""

    def render_str(self, text: str, **how: Any) -> Text:
        """The text as Rich draws it."""
        return super().render_str(escaped(text, newlines=False), **how)


def talk() -> Console:
    """The console for progress and notes: stderr, so that stdout holds data only.

    Texts hold what others say (errors, paths), so nothing in them is taken for markup.
    """
    return _Console(
        file=unescaped(sys.stderr), soft_wrap=True, highlight=False, markup=False, emoji=False
    )


def say_next(*words: object, before: str = "next") -> None:
    """Says on stderr which command could follow, as a shell takes it."""
    typer.echo(f"{before}: {escaped(shlex.join(['dfsc-tune', *map(str, words)]))}", err=True)


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


def print_json(value: object) -> None:
    """Prints JSON on stdout, of dataclasses too; NaN and infinity become null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False)
    # What it leaves as it is may steer a terminal all the same.
    lines = (_ascii_where_escaped(line) for line in text.split("\n"))
    typer.echo("\n".join(lines))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, each as wide as its widest cell."""
    rows = [[escaped(cell) for cell in row] for row in rows]
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


def _ascii_where_escaped(line: str) -> str:
    return "".join(json.dumps(x)[1:-1] if escaped(x) != x else x for x in line)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
