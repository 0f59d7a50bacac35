"""The README: its commands exist, its YAML loads, its first block holds the two commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from dfsc_tune.cli import app
from dfsc_tune.config import TrialConfig, loads
from dfsc_tune.search.space import SearchSpace

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(.*?)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
LINES = [
    line[line.index("dfsc-tune") :]
    for language, block in BLOCKS
    for line in block.splitlines()
    if language == "sh" and "dfsc-tune" in line
]


def block(language: str) -> str:
    (text,) = [text for name, text in BLOCKS if name == language]
    return text


def leaves(command: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """All commands of the app by their words."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        return {path: command}
    return {
        k: v for name, sub in subcommands.items() for k, v in leaves(sub, (*path, name)).items()
    }


COMMANDS = leaves(get_command(app))


def test_the_first_block_holds_the_two_commands() -> None:
    language, text = BLOCKS[0]
    main, tests = text.splitlines()
    assert language == "sh"
    assert main.endswith("dfsc-tune search --category screw_bag")
    assert tests.endswith("pytest")


@pytest.mark.parametrize("line", LINES)
def test_commands_in_the_readme_parse(line: str) -> None:
    words = shlex.split(line)[1:]
    path = next(tuple(words[:n]) for n in (1, 2) if tuple(words[:n]) in COMMANDS)
    command = COMMANDS[path]
    # Parsing alone runs nothing, but refuses unknown options and missing arguments.
    context = command.make_context(" ".join(path), words[len(path) :])
    assert context.params


def test_every_command_stands_in_the_readme() -> None:
    for path in COMMANDS:
        assert f"dfsc-tune {' '.join(path)}" in README


def test_the_yaml_loads() -> None:
    space = loads(block("yaml space"), SearchSpace, "README")
    assert space.for_category("screw_bag").parameters["margin"].bounds() == (1.0, 2.0)
    trial = loads(block("yaml trial"), TrialConfig, "README")
    assert trial.train.autoencoder_augmentation
    assert yaml.safe_load(block("yaml dataset"))["defect_types"]


def test_shipped_spaces_stand_in_the_readme() -> None:
    for path in (Path(__file__).parents[1] / "search_spaces").glob("*.yaml"):
        assert f"`{path.stem}`" in README
