"""The rows of a run's trials and reports, collected as they happen and written now and then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.results.files import write_table
from dfsc_tune.results.schema import REPORTS, TRIALS
from dfsc_tune.trial import Progress

_WRITE_INTERVAL_SECONDS = 5.0


class RunTables:
    """`trials.parquet` and `reports.parquet` of a run that goes on.

    Whenever the process dies, the files hold all but the last few seconds, and each is whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, TrialConfig] = {}
        self._reports: list[dict[str, Any]] = []
        self._written = 0.0

    def start(self, trial: str, config: TrialConfig, role: str) -> None:
        """Opens a trial's row; one that starts again after a failure keeps it."""
        self.configs[trial] = config
        self.trials.setdefault(
            trial,
            {
                "category": config.category,
                "trial": trial,
                "role": role,
                "state": "running",
                **searchable_values(config),
                "step": 0,
                "num_steps": config.train.num_steps,
            },
        )
        self._write_now_and_then()

    def report(
        self,
        trial: str,
        progress: Progress,
        node: str | None = None,
        device: str | None = None,
    ) -> None:
        """Adds a report's rows, one for each EMA momentum, and brings the trial's up to date."""
        row = self.trials[trial]
        losses = {f"loss_{name}": value for name, value in progress.losses.items()}
        for momentum, aurocs in progress.metrics.items():
            self._reports.append(
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
        row |= progress.metrics[progress.ema_momentum]
        row |= {"ema_momentum": progress.ema_momentum}
        row |= {"value": progress.value, "step": progress.step, "seconds": progress.seconds}
        row |= {"node": node, "device": device}
        if row.get("best_value") is None or progress.value > row["best_value"]:
            row |= {"best_value": progress.value, "best_step": progress.step}
        self._write_now_and_then()

    def end(self, trial: str, state: str, error: str | None = None) -> None:
        """Closes a trial's row: complete, pruned or failed, and why."""
        self.trials[trial] |= {"state": state, "error": error}
        self.write()

    def write(self) -> None:
        """Writes both tables."""
        write_table(self.folder, TRIALS, list(self.trials.values()))
        write_table(self.folder, REPORTS, self._reports)
        self._written = time.monotonic()

    def _write_now_and_then(self) -> None:
        if time.monotonic() - self._written > _WRITE_INTERVAL_SECONDS:
            self.write()
