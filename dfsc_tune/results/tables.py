"""The tables of trials and reports of a running search, collected and written at intervals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.progress import Progress
from dfsc_tune.results.files import table_of, write_table
from dfsc_tune.results.schema import REPORTS, TRIALS

_WRITE_INTERVAL_SECONDS = 5.0
_WRITE_SHARE = 0.05


class RunTables:
    """`trials.parquet` and `reports.parquet` of a running search.

    Whenever the process dies, each file is whole and lacks at most the last five seconds or, in a
    run so large that writing takes long, the last twenty times the time of writing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, TrialConfig] = {}
        self.best: dict[str, dict[str, Any]] = {}
        """The row of the best complete trial of each category."""
        self._notes: dict[str, str] = {}
        self.num_steps = 0
        """Steps done by all trials."""
        self.num_steps_of_ended = 0
        """Steps done by the ended trials."""
        # As columns, the many reports of a large run take less memory than as rows, and need not be
        # converted at each write.
        self._written_reports = table_of(REPORTS, [])
        self._new_reports: list[dict[str, Any]] = []
        self._next_write = 0.0
        self._paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Writes nothing within the block, which replays earlier events."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def start(self, trial: str, config: TrialConfig, role: str) -> None:
        """Opens a trial's row, or reopens that of a trial retried after a failure."""
        self.configs[trial] = config
        row = self.trials.setdefault(
            trial,
            {
                "category": config.category,
                "trial": trial,
                "role": role,
                **searchable_values(config),
                "step": 0,
                "num_steps": config.train.num_steps,
            },
        )
        row["state"] = "running"
        self._write_now_and_then()

    def report(
        self,
        trial: str,
        progress: Progress,
        node: str | None = None,
        device: str | None = None,
    ) -> None:
        """Adds a report's rows, one for each EMA momentum, and updates the trial's row."""
        row = self.trials[trial]
        losses = {f"loss_{name}": value for name, value in progress.losses.items()}
        for momentum, aurocs in progress.metrics.items():
            self._new_reports.append(
                {
                    "category": row["category"],
                    "trial": trial,
                    "step": progress.step,
                    "ema_momentum": momentum,
                    "own_momentum": momentum == progress.ema_momentum,
                    **aurocs,
                    **losses,
                    "seconds": progress.seconds,
                }
            )
        self.num_steps += progress.step - row["step"]
        row |= progress.metrics[progress.ema_momentum]
        row |= {"ema_momentum": progress.ema_momentum}
        row |= {"value": progress.value, "step": progress.step, "seconds": progress.seconds}
        row |= {"node": node, "device": device}
        if row.get("best_value") is None or progress.value > row["best_value"]:
            row |= {"best_value": progress.value, "best_step": progress.step}
        self._write_now_and_then()

    def note(self, trial: str, text: str) -> None:
        """Puts what a user should know of a trial where an error would stand, if there is none."""
        self._notes[trial] = self.trials[trial]["error"] = text

    def broke(self, trial: str, reason: str) -> None:
        """Puts the reason why a trial broke, and is tried again, where an error stands."""
        self.trials[trial]["error"] = reason

    def end(self, trial: str, state: str, error: str | None = None) -> None:
        """Closes a trial's row as complete, pruned, failed or interrupted; adds its error."""
        row = self.trials[trial]
        row |= {"state": state, "error": error or self._notes.get(trial)}
        if state != "interrupted":
            self.num_steps_of_ended += row["step"]
        best = self.best.get(row["category"])
        if state == "complete" and (best is None or row["value"] > best["value"]):
            self.best[row["category"]] = row
        self._write_now_and_then()

    def write(self) -> None:
        """Writes both tables."""
        start = time.monotonic()
        write_table(self.folder, TRIALS, list(self.trials.values()))
        new = table_of(REPORTS, self._new_reports)
        self._written_reports = pa.concat_tables([self._written_reports, new]).combine_chunks()
        self._new_reports = []
        write_table(self.folder, REPORTS, self._written_reports)
        end = time.monotonic()
        # Writing takes longer with more rows; it may take at most a fixed share of the time.
        self._next_write = end + max(_WRITE_INTERVAL_SECONDS, (end - start) / _WRITE_SHARE)

    def _write_now_and_then(self) -> None:
        if not self._paused and time.monotonic() >= self._next_write:
            self.write()
