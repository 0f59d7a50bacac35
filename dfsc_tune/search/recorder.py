"""Passes Tune's events on to the run's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from dfsc_tune.config import TrialConfig
from dfsc_tune.results import RunTables
from dfsc_tune.search.searcher import DEVICE, FAILURE, end_state
from dfsc_tune.search.trainable import from_metrics


class Recorder(Callback):
    """Keeps the run's tables, and where each trial's last checkpoint lies."""

    def __init__(self, folder: Path) -> None:
        self.tables = RunTables(folder)
        self.checkpoints: dict[str, Path] = {}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Opens the trial's row."""
        config = TrialConfig.model_validate(trial.config["trial_config"])
        self.tables.start(trial.trial_id, config, trial.config["role"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Adds a report."""
        if not result.get(FAILURE):
            node, device = result.get("hostname"), result[DEVICE]
            self.tables.report(trial.trial_id, from_metrics(result), node, device)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Closes the row of a trial that ended or was stopped early."""
        last = trial.last_result
        num_steps = self.tables.trials[trial.trial_id]["num_steps"]
        if trial.checkpoint:
            self.checkpoints[trial.trial_id] = Path(trial.checkpoint.path)
        self.tables.end(trial.trial_id, end_state(last, num_steps), last.get(FAILURE))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Closes the row of a trial that broke, perhaps before it started."""
        self.on_trial_start(iteration, trials, trial)
        self.tables.end(trial.trial_id, "failed", _last_line(trial))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Closes what did not end: the search was interrupted."""
        for name, row in self.tables.trials.items():
            if row["state"] == "running":
                self.tables.end(name, "interrupted")
        self.tables.write()


def _last_line(trial: Trial) -> str:
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, TypeError):
        return "unknown error"
    return lines[-1] if lines else "unknown error"
