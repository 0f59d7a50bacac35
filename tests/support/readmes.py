"""The READMEs taken apart: code blocks, command lines, tables; and the commands there are."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from typer.main import get_command

from dfsc_tune.cli import app

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "search_spaces/README.md", "results/README.md", "cluster/README.md")
}
DOCS = "\n".join(PAGES.values())
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```", DOCS, flags=re.MULTILINE | re.DOTALL)
LINES = dict.fromkeys(
    line[line.index("dfsc-tune") :]
    for language, block in BLOCKS
    for line in block.splitlines()
    if language == "sh" and "dfsc-tune" in line
)


def block(language: str) -> str:
    (text,) = [text for name, text in BLOCKS if name == language]
    return text


def rows_below(head: str) -> list[list[str]]:
    """The cells of the table whose head begins so, row by row."""
    (table,) = re.findall(rf"^\| {re.escape(head)}.*\n\|[ -|]*\n((?:\|.*\n)+)", DOCS, re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in table.splitlines()]


def documented_columns(table: str) -> dict[str, str]:
    """The dtype of each column by the page's words."""
    return {
        column: cells[1]
        for cells in rows_below(f"`{table}` | dtype |")
        for column in re.findall(r"`(\w+)`", cells[0])
    }


def columns(frame: pd.DataFrame) -> dict[str, str]:
    """The dtype of each column of a frame, in the words of the pages."""
    # Before pandas 3, text is of dtype object.
    return {
        str(name): "string" if str(dtype) in ("str", "object") else str(dtype)
        for name, dtype in frame.dtypes.items()
    }


def leaves(command: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """All commands of the app by their words."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        return {path: command}
    return {
        k: v for name, sub in subcommands.items() for k, v in leaves(sub, (*path, name)).items()
    }


COMMANDS = leaves(get_command(app))
