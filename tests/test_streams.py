"""Commands whose reader or terminal goes away while they work, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Two groups, one in the other, as `dfsc-tune data` is.
APP = """
import os, sys, time
from pathlib import Path
import typer
from dfsc_tune.cli.group import make_app
from dfsc_tune.cli.streams import end_with_reader

app, inner = make_app("outer"), make_app("inner")
app.add_typer(inner, name="data")

@inner.command()
def work(follow: bool = False):
    if follow:
        end_with_reader()
    typer.echo("begun")
    while not Path("go").exists():
        time.sleep(0.01)
    for line in range(20_000):
        typer.echo(f"line {line}")
        typer.echo(f"note {line}", err=True)
    Path("done").touch()

@app.command()
def wait():
    typer.echo("begun")
    time.sleep(60)

app()
"""


@contextmanager
def begun(folder: Path, *words: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    command = [sys.executable, "-c", APP, *words]
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, **settings) as process:
        if process.stdout is not None:
            assert process.stdout.readline() == "begun\n"
        yield process


@pytest.mark.parametrize("both", [True, False])
def test_work_goes_on_when_its_reader_is_gone(tmp_path: Path, both: bool) -> None:
    """`search 2>&1 | tee x | head`, and without the errors."""
    stderr = subprocess.STDOUT if both else subprocess.PIPE
    with begun(tmp_path, "data", "work", stderr=stderr) as process:
        process.stdout.close()
        (tmp_path / "go").touch()
        notes = "" if both else process.stderr.read()
        assert process.wait(60) == 0
    assert (tmp_path / "done").exists()
    assert notes.count("note") == (0 if both else 20_000)
    assert "Traceback" not in notes


def test_what_is_there_to_be_read_ends_with_its_reader(tmp_path: Path) -> None:
    with begun(tmp_path, "data", "work", "--follow") as process:
        process.stdout.close()
        (tmp_path / "go").touch()
        notes = process.stderr.read()
        assert process.wait(60) == 0
    assert not (tmp_path / "done").exists()
    assert "Traceback" not in notes


def test_work_goes_on_when_its_terminal_is_gone(tmp_path: Path) -> None:
    """As under `nohup` or in another session: nothing but its writing tells it."""
    ours, theirs = os.openpty()
    settings = {"stdout": theirs, "stderr": theirs, "start_new_session": True}
    with begun(tmp_path, "data", "work", **settings) as process:
        os.close(theirs)
        assert os.read(ours, 5) == b"begun"
        os.close(ours)
        (tmp_path / "go").touch()
        assert process.wait(60) == 0
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_has_its_own_status(tmp_path: Path, number: signal.Signals) -> None:
    with begun(tmp_path, "wait") as process:
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert stderr == "interrupted\n"


def test_nohup_is_heeded(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with begun(tmp_path, "data", "work") as process:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            (tmp_path / "go").touch()
            process.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.returncode == 0
