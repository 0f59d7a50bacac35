"""How far a run is, read from its files: from any machine that sees them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dfsc_tune.results import TRIALS, Run, best_trials, is_published, shown_duration

_MAX_RUNNING = 12
_STATES = ("running", "complete", "pruned", "failed", "interrupted")
_LONG_SILENCE_SECONDS = 600


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
class RunProgress:
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
    """Whether nothing runs and the best models have been scored."""

    @property
    def headline(self) -> str:
        """The counts in one line."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        text = f"{counts or 'no trial yet'} of up to {self.num_expected}"
        return f"{text}; ended" if self.ended else text

    @property
    def news(self) -> str:
        """How old this is, and whether that is a reason to worry."""
        if self.ended or self.silence_seconds is None:
            return ""
        text = f"last news {shown_duration(self.silence_seconds)} ago"
        if self.silence_seconds > _LONG_SILENCE_SECONDS:
            text += ": long between reports, or the run has died"
        return text


def progress_of(run: Run) -> RunProgress:
    """What a run's files say of it now."""
    categories = run.settings["categories"]
    budget = run.settings.get("space", {}).get("budget", {"num_trials": 1})
    counts = run.trials["state"].value_counts()
    table = run.folder / TRIALS
    silence = max(time.time() - table.stat().st_mtime, 0.0) if table.exists() else None
    finished = set(best_trials(run.trials)["category"])
    return RunProgress(
        counts={state: int(counts[state]) for state in _STATES if state in counts},
        num_expected=budget["num_trials"] * len(categories),
        lines=list(_lines(run)),
        silence_seconds=silence,
        ended=bool(finished)
        and "running" not in counts
        and all(is_published(run, category) for category in finished),
    )


def _lines(run: Run) -> Iterator[TrialLine]:
    running = run.trials[run.trials["state"] == "running"].head(_MAX_RUNNING)
    for label, rows in (("best", best_trials(run.trials)), ("running", running)):
        for row in rows.to_dict("records"):
            searched = run.settings["searched"][row["category"]]
            yield TrialLine(
                category=str(row["category"]),
                label=label,
                step=int(row["step"]),
                num_steps=int(row["num_steps"]),
                value=None if pd.isna(row["value"]) else float(row["value"]),
                settings={name: row[name] for name in searched},
            )
