"""Watching a run by its files: what it says of one that goes on, has ended, or has gone quiet."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dfsc_tune.cli import watch
from dfsc_tune.results import LEDGER, SCORES, TRIALS, load, write_settings, write_table
from dfsc_tune.results.status import status_of
from dfsc_tune.search.ledger import Ledger
from tests.support.commands import invoke
from tests.support.synthetic_run import CATEGORY, make_run, run_settings


def with_running(folder: Path) -> Path:
    """A run two trials of which are under way, as it looks before any scores are written."""
    make_run(folder)
    (folder / SCORES).unlink()
    rows = pq.read_table(folder / TRIALS).to_pylist()
    for row in rows[-2:]:
        row |= {"state": "running", "step": 20}
    write_table(folder, TRIALS, rows)
    return folder


def test_a_run_that_goes_on_is_told_by_counts_best_and_running(tmp_path: Path) -> None:
    progress = status_of(load(with_running(tmp_path)))
    assert (progress.counts["running"], progress.counts["failed"]) == (2, 1)
    assert progress.num_expected == 40
    assert [line.label for line in progress.lines] == ["best", "running", "running"]
    best, running, _ = progress.lines
    assert (best.category, best.step, running.step) == (CATEGORY, 90, 20)
    assert set(best.settings) == {"margin", "quantile", "alpha"}
    assert not progress.ended
    assert progress.news.startswith("last news")


def test_a_long_silence_is_a_reason_to_worry(tmp_path: Path) -> None:
    folder = with_running(tmp_path)
    an_hour_ago = time.time() - 3600
    os.utime(folder / TRIALS, (an_hour_ago, an_hour_ago))
    assert (
        "1 h 00 min ago: reports are far apart, or the run has died" in status_of(load(folder)).news
    )


def test_a_run_has_ended_once_its_best_are_scored(tmp_path: Path) -> None:
    progress = status_of(load(make_run(tmp_path)))
    assert progress.ended
    assert progress.summary.endswith("of up to 40; ended")
    assert progress.news == ""


def all_failed(folder: Path, events: str | None) -> Path:
    """A run whose trials have all failed, with a ledger of these lines or none."""
    make_run(folder)
    (folder / SCORES).unlink()
    rows = pq.read_table(folder / TRIALS).to_pylist()
    rows = [row | {"state": "failed", "error": "a loss became nan"} for row in rows]
    write_table(folder, TRIALS, rows)
    if events is not None:
        (folder / LEDGER).write_text(events)
    return folder


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        ('{"event": "ended", "why": null}\n', "without a result for tray: a loss became nan"),
        ('{"event": "ended", "why": "no disk"}\n{"eve', "without a result for tray: no disk"),
        (None, "without a result for tray: a loss became nan"),
        # The next trial may come, or the process have died.
        ('{"event": "ended", "why": null}\n{"event": "resumed"}\n', None),
        ("", None),
    ],
)
def test_a_run_that_ended_without_result_says_so(
    tmp_path: Path, events: str | None, shown: str | None
) -> None:
    progress = status_of(load(all_failed(tmp_path, events)))
    assert progress.ended == (shown is not None)
    assert progress.summary == "40 failed of up to 40" + (f"; ended {shown}" if shown else "")


def test_the_command_ends_without_result(tmp_path: Path) -> None:
    all_failed(tmp_path / "first", '{"event": "ended", "why": null}\n')
    result = invoke("watch", "first", "--results", str(tmp_path))
    assert result.stdout == (
        "40 failed of up to 40; ended without a result for tray: a loss became nan\n"
    )
    assert "dfsc-tune report first" in result.stderr


def test_a_run_before_its_first_trial(tmp_path: Path) -> None:
    write_settings(tmp_path, run_settings())
    progress = status_of(load(tmp_path))
    assert progress.summary == "no trial yet of up to 40"
    assert not progress.ended


@pytest.mark.parametrize("once", [True, False])
def test_the_command_ends_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    folder = with_running(tmp_path / "first")
    make_run(tmp_path / "ended")

    def end(seconds: float) -> None:
        assert seconds == 0.2
        # Whole files take the place of others, as a search writes them.
        for name in (TRIALS, SCORES):
            (tmp_path / "ended" / name).replace(folder / name)

    monkeypatch.setattr(watch.time, "sleep", end)
    command = ["watch", "first", "--results", str(tmp_path), "--interval", "0.2"]
    result = invoke(*command, *(["--once"] if once else []))
    assert result.exit_code == 0, result.output
    assert "2 running" in result.stdout
    assert ("; ended" in result.stdout) != once
    assert ("dfsc-tune report first" in result.stderr) != once


def test_a_run_whose_process_is_gone_is_said_to_be_nobodys(tmp_path: Path) -> None:
    folder = with_running(tmp_path / "first")
    with closing(Ledger(folder)) as ledger:
        ledger.append({"event": "began"})
        assert not status_of(load(folder)).is_abandoned
        result = invoke("runs", "--results", tmp_path)
        assert "no process" not in result.stdout
    assert "no process on this machine works on it" in status_of(load(folder)).news
    result = invoke("runs", "--results", tmp_path)
    assert f"works on it; go on: dfsc-tune resume {folder}" in result.stdout
    with closing(Ledger(folder)) as ledger:
        ledger.append({"event": "ended", "why": None})
    assert not status_of(load(folder)).is_abandoned
