"""One config trained on its own: the same data, tables and model folder as a search leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.prepare import CategoryData
from dfsc_tune.publish import publish
from dfsc_tune.results import RunTables
from dfsc_tune.train import TrialError
from dfsc_tune.trial import Progress, run_trial

_TRIAL = "config"


def train_config(
    config: TrialConfig,
    data: CategoryData,
    folder: Path,
    progress: Callable[[Progress], None],
    device: str = "cpu",
) -> None:
    """Trains a config in full and publishes its model and scores in a run's folder.

    Args:
        config: what to train.
        data: its category, read.
        folder: the run; a checkpoint in it is gone on from.
        progress: called at every report.
        device: where to train.

    Raises:
        UserError: a loss is not finite; says when.
    """
    tables = RunTables(folder)
    tables.start(_TRIAL, config, role="config")
    checkpoints = folder / "checkpoint"

    def report(latest: Progress) -> None:
        tables.report(_TRIAL, latest)
        progress(latest)

    try:
        run_trial(config, data.trial, report, checkpoints, device)
    except TrialError as failure:
        tables.end(_TRIAL, "failed", str(failure))
        raise UserError(f"{failure}; lower train.learning_rate") from failure
    tables.end(_TRIAL, "complete")
    publish(folder, {config.category: data}, {_TRIAL: config}, {_TRIAL: checkpoints})
