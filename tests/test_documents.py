"""YAML and JSON of any origin: what is too deep, too large or no text is refused, and quickly."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.settings import loads
from dfsc_tune.storage import documents
from dfsc_tune.storage.documents import (
    MOST_LEVELS,
    compose_yaml,
    parse_json,
    parse_yaml,
    read_json,
    read_yaml,
)

NESTED = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))
BILLION_LAUGHS = f"a0: &a0 [{', '.join(['x'] * 9)}]\n{NESTED}\n"
BY_ALIASES = "a0: &a0 []\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 5000, "more than 40 levels"),
        ("[" * 5000 + "]" * 5000, "x.yaml:1: not valid YAML: more than 40 levels"),
        ("{a: " * 5000 + "1" + "}" * 5000, "more than 40 levels"),
        ("a:\n" + "".join(" " * n + "- \n" for n in range(1, 200)), "more than 40 levels"),
        (BILLION_LAUGHS, "x.yaml:7: not valid YAML: aliases that stand for more than"),
        (BY_ALIASES, "x.yaml:41: not valid YAML: more than 40 levels"),
        ("a: &a [*a]", "an alias stands for what it is a part of"),
        ("a: *b", "undefined alias"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("a: !!bool maybe", "maybe"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: !!int ''", "not valid YAML"),
        (f"a: {'9' * 5000}", "not valid YAML"),
        ("!!map x", "not valid YAML"),
        ('a: "\\0"', "a character that no text can hold"),
        ('a: "\\ud800"', "a character that no text can hold"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("a: \x07", "unacceptable character"),
    ],
)
def test_yaml_that_would_hang_or_break_is_refused_at_once(text: str, told: str) -> None:
    start = time.process_time()
    for read in (
        lambda: parse_yaml(text, "x.yaml"),
        lambda: loads(text, TrialConfig, "x.yaml"),
    ):
        with pytest.raises(UserError, match=told):
            read()
    if "levels" in told or "alias" in told:
        with pytest.raises(UserError, match=told):
            compose_yaml(text, "x.yaml")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "more than 40 levels"),
        ("[" * 500 + "]" * 500, "more than 40 levels"),
        ('{"a":' * 60 + "1" + "}" * 60, "more than 40 levels"),
        ('["\\ud800"]', "a character that no text can hold"),
        ('{"a\\u0000": 1}', "a character that no text can hold"),
        ("[1, ", r"x: not valid JSON: .*line 1"),
        ("9" * 5000, "not valid JSON"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_json_that_would_break_is_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_json(text, "x")


def test_what_people_write_is_read() -> None:
    tree, root = parse_yaml("base: &base {x: [1, 2]}\nother: {<<: *base, y: *base}", "x")
    assert tree == {"base": {"x": [1, 2]}, "other": {"x": [1, 2], "y": {"x": [1, 2]}}}
    assert root is not None
    deep = "[" * MOST_LEVELS + "]" * MOST_LEVELS
    assert parse_yaml(deep, "x")[0] == parse_json(deep, "x") == json.loads(deep)
    assert parse_json(json.dumps([[1]] * 100 + ["ü\\u0000"]), "x")[-1] == "ü\\u0000"


def test_a_file_is_refused_by_its_size_and_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 1_000_000)
    path = tmp_path / "x"
    path.write_text("[" + "1," * 500_000 + "1]")
    for read in (read_yaml, read_json):
        with pytest.raises(UserError, match="more than 1 MB"):
            read(path)
        with pytest.raises(UserError, match="Is a directory"):
            read(tmp_path)
        with pytest.raises(UserError, match="No such file"):
            read(tmp_path / "none")


def test_a_named_pipe_is_refused_at_once_and_that_of_a_shell_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(UserError, match="is a named pipe"):
            read_yaml(path)
    reader, writer = os.pipe()
    os.write(writer, b"x: 1")
    os.close(writer)
    assert read_yaml(Path(f"/dev/fd/{reader}")) == {"x": 1}
    os.close(reader)
