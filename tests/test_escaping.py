"""Names of files steer no terminal and forge no line, wherever they are shown."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from dfsc_tune.cli import printing
from dfsc_tune.cli.streams import escaped
from tests.support.processes import run

DATA = Path(__file__).parent / "assets" / "runs" / "0.1.0" / "data" / "tray"
EVIL = "z\x1b[31mRED\x1b]0;t\x07\nerror: forged\u202e\x9b2J"
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
SHOWN = r"z\x1b[31mRED\x1b]0;t\x07\nerror: forged\u202e\x9b2J"


def test_what_steers_a_terminal_is_shown_as_python_writes_it() -> None:
    assert escaped(EVIL) == SHOWN
    plain = "Grüße, 部品 — 100 %\t"
    assert escaped(plain, newlines=False) == plain
    assert escaped("one\ntwo\r", newlines=False) == "one\ntwo\\r"


@pytest.fixture
def evil_data(tmp_path: Path) -> Path:
    """A data folder, and a category's images, of such names."""
    category = tmp_path / EVIL / "tray"
    shutil.copytree(DATA, category)
    good = category / "test" / "good"
    (good / "000.jpg").rename(good / f"{EVIL}.jpg")
    (good / f"damaged{EVIL}.png").write_bytes(b"no image")
    return tmp_path / EVIL


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check", "DATA"),
        ("data", "check", "DATA", "--json"),
        ("search", "--data", "DATA", "--category", "tray", "--name", "x"),
        ("search", "--data", "DATA", "--category", EVIL, "--name", "x"),
        ("evaluate", "DATA"),
        ("best", EVIL),
    ],
)
def test_commands_show_names_escaped(
    evil_data: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = run(*(str(evil_data) if x == "DATA" else x for x in words), cwd=tmp_path)
    assert not STEERING.search(done.stdout + done.stderr)
    assert "\nerror: forged" not in done.stdout + done.stderr
    shown = done.stdout + done.stderr
    assert r"\x1b[31mRED" in shown or r"\u001b[31mRED" in shown
    if "--json" in words:
        json.loads(done.stdout)


def test_json_stays_json_with_the_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_json({"image": EVIL, "also": "ü"})
    text = capsys.readouterr().out
    assert not STEERING.search(text)
    assert json.loads(text) == {"image": EVIL, "also": "ü"}
    assert "ü" in text


def test_tables_and_the_live_view_show_names_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printing.print_table([["name"], [EVIL]])
    assert capsys.readouterr().out.splitlines() == ["name", SHOWN]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    console = printing.talk()
    table = Table("name")
    table.add_row(EVIL)
    console.print(table)
    console.print(f"note: {EVIL}")
    assert not STEERING.search(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_full_disk_behind_the_output_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dfsc_tune", "runs"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == "error: [Errno 28] No space left on device\n"
