"""How far a run is, read from its files: from any machine that sees them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfsc_tune.errors import UserError
from dfsc_tune.results import ENDED, LEDGER, TRIALS, Run, best_trials, is_finalized, shown_duration
from dfsc_tune.storage.documents import parse_json

_MAX_RUNNING = 12
_STATES = ("running", "complete", "pruned", "failed", "interrupted")
_LONG_SILENCE_SECONDS = 600
_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class TrialLine:
    """One trial as the watcher sees it."""

    category: str
    label: str
    """best, or running."""
    step: int
    num_steps: int
    value: float | None
    """AUROC of the selection part at the last report."""
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class RunStatus:
    """A run at this moment."""

    counts: Mapping[str, int]
    """Trials by state, those there are."""
    num_expected: int
    """At most so many trials will be tried."""
    lines: Sequence[TrialLine]
    """The best so far of each category, then those that run."""
    silence_seconds: float | None
    """Since the trials' table was last written; None before the first."""
    ended: bool
    """Whether nothing runs, and what could be scored has been."""
    without_result: Sequence[str] = ()
    """The categories that no trial was trained in full of."""
    why: str = ""
    """Why it ended before its time, or without a result, as far as its files say."""

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
        """How old this is, and whether that is a reason to worry."""
        if self.ended or self.silence_seconds is None:
            return ""
        text = f"last news {shown_duration(self.silence_seconds)} ago"
        if self.silence_seconds > _LONG_SILENCE_SECONDS:
            text += ": long between reports, or the run has died"
        return text


def status_of(run: Run) -> RunStatus:
    """What a run's files say of it now."""
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
        why=last.get("why") or _usual_error(run.trials, without_result),
    )


def _is_over(run: Run, finished: Collection[str]) -> bool:
    """Whether the tables alone say that nothing more comes: those of older runs, or of `train`."""
    if run.trials.empty or (run.trials["state"] == "running").any():
        return False
    if not finished:
        # What trains a single config does no more once that has failed; a search may.
        return not (run.folder / LEDGER).exists()
    return all(is_finalized(run, category) for category in finished)


def _usual_error(trials: pd.DataFrame, categories: Collection[str]) -> str:
    """What most trials of some categories failed with; empty if none did."""
    failed = trials[trials["category"].isin(categories) & (trials["state"] == "failed")]
    errors = failed["error"].value_counts()
    return "" if errors.empty else str(errors.index[0])


def _last_event(ledger: Path) -> dict[str, Any]:
    """The last whole line of a ledger, read from its end, for it may be long; else nothing."""
    if not ledger.exists():
        return {}
    with ledger.open("rb") as file:
        file.seek(max(ledger.stat().st_size - _TAIL_BYTES, 0))
        # What follows the last line's end is half of another, which never counts.
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
