"""The progress of a run, read from its files on any machine that sees them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfsc_tune.errors import UserError
from dfsc_tune.results import ENDED, LEDGER, TRIALS, Run, best_trials, has_scores, shown_duration
from dfsc_tune.storage.documents import check_no_pipe, parse_json

_MAX_RUNNING = 12
_STATES = ("running", "complete", "pruned", "failed", "interrupted")
_LONG_SILENCE_SECONDS = 600
_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class TrialLine:
    """One trial as `search` and `watch` show it."""

    category: str
    label: str
    """Either best or running."""
    step: int
    num_steps: int
    value: float | None
    """AUROC of the selection part at the last report."""
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class RunStatus:
    """A run at this moment."""

    counts: Mapping[str, int]
    """Number of trials by state, without states that have none."""
    num_expected: int
    """Largest number of trials that the run may have."""
    lines: Sequence[TrialLine]
    """The best trial so far of each category, then the running ones."""
    silence_seconds: float | None
    """Seconds since the table of trials was last written; None before that."""
    ended: bool
    """True if nothing runs and all that could be scored has been."""
    without_result: Sequence[str] = ()
    """The categories in which no trial was trained in full."""
    is_abandoned: bool = False
    """See the function of that name."""
    why: str = ""
    """The reason for an early end or a missing result, as far as the files tell."""

    @property
    def summary(self) -> str:
        """The counts in one line."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        text = f"{counts or 'no trial yet'} of up to {self.num_expected}"
        if not self.ended:
            return text
        lacking = ", ".join(self.without_result)
        text += f"; ended without a result for {lacking}" if lacking else "; ended"
        return f"{text}: {self.why}" if self.why else text

    @property
    def news(self) -> str:
        """The age of the last write, with a warning if it is long."""
        if self.ended or self.silence_seconds is None:
            return ""
        text = f"last news {shown_duration(self.silence_seconds)} ago"
        if self.is_abandoned:
            text += ": no process on this machine works on it"
        elif self.silence_seconds > _LONG_SILENCE_SECONDS:
            text += ": reports are far apart, or the run has died"
        return text


def status_of(run: Run) -> RunStatus:
    """Returns the status of a run as its files show it now."""
    categories, space = run.settings.categories, run.settings.space
    counts = run.trials["state"].value_counts()
    table = run.folder / TRIALS
    silence = max(time.time() - table.stat().st_mtime, 0.0) if table.exists() else None
    finished = set(best_trials(run.trials)["category"])
    without_result = [category for category in categories if category not in finished]
    last = _last_event(run.folder / LEDGER)
    return RunStatus(
        counts={state: int(counts[state]) for state in _STATES if state in counts},
        num_expected=(space.budget.num_trials if space else 1) * len(categories),
        lines=list(_lines(run)),
        silence_seconds=silence,
        ended=last.get("event") == ENDED or _is_over(run, finished),
        without_result=without_result,
        is_abandoned=is_abandoned(run),
        why=last.get("why") or _usual_error(run.trials, without_result),
    )


def is_running(folder: Path) -> bool:
    """True if a process on this machine is running the search in a folder."""
    check_no_pipe(folder / LEDGER)
    try:
        file = os.open(folder / LEDGER, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def is_abandoned(run: Run) -> bool:
    """True if a search died: it has not ended, and no process on this machine is running it.

    Of a run that is kept in an object store, the files here do not tell.
    """
    if run.settings.store is not None or not (run.folder / LEDGER).exists():
        return False
    finished = set(best_trials(run.trials)["category"])
    has_ended = _last_event(run.folder / LEDGER).get("event") == ENDED or _is_over(run, finished)
    return not has_ended and not is_running(run.folder)


def _is_over(run: Run, finished: Collection[str]) -> bool:
    """True if the tables alone show the end: those of older runs, or of `train`."""
    if run.trials.empty or (run.trials["state"] == "running").any():
        return False
    if not finished:
        # A single training ends when it fails; a search may go on.
        return not (run.folder / LEDGER).exists()
    return all(has_scores(run, category) for category in finished)


def _usual_error(trials: pd.DataFrame, categories: Collection[str]) -> str:
    """The commonest error of the failed trials of some categories; empty if there is none."""
    failed = trials[trials["category"].isin(categories) & (trials["state"] == "failed")]
    errors = failed["error"].value_counts()
    return "" if errors.empty else str(errors.index[0])


def _last_event(ledger: Path) -> dict[str, Any]:
    """Reads the last whole line of a ledger; empty if there is none."""
    if not ledger.exists():
        return {}
    check_no_pipe(ledger)
    with ledger.open("rb") as file:
        file.seek(max(ledger.stat().st_size - _TAIL_BYTES, 0))
        # Text after the last line end is an incomplete event, which never counts.
        lines = file.read().split(b"\n")[:-1]
    try:
        event = parse_json(lines[-1], str(ledger))
    except (IndexError, UserError):
        return {}
    return event if isinstance(event, dict) else {}


def _lines(run: Run) -> Iterator[TrialLine]:
    running = run.trials[run.trials["state"] == "running"].head(_MAX_RUNNING)
    for label, rows in (("best", best_trials(run.trials)), ("running", running)):
        for row in rows.to_dict("records"):
            searched = run.settings.searched[str(row["category"])]
            yield TrialLine(
                category=str(row["category"]),
                label=label,
                step=int(row["step"]),
                num_steps=int(row["num_steps"]),
                value=None if pd.isna(row["value"]) else float(row["value"]),
                settings={name: row[name] for name in searched},
            )
