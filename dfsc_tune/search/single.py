"""Trains one config on its own, with the same tables and model folder as a search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.progress import Progress
from dfsc_tune.results import (
    DatasetRecord,
    RunSettings,
    RunTables,
    create_run,
    removed_on_error,
    write_settings,
)
from dfsc_tune.search.finalize import finalize
from dfsc_tune.settings import spelled_out
from dfsc_tune.training.machine import describe_machine
from dfsc_tune.training.prepare import prepare_category, with_chosen_objective
from dfsc_tune.training.train import TrialError
from dfsc_tune.training.trial import run_trial

_TRIAL = "config"
_SHOWN_SETTINGS = ("margin", "quantile", "alpha", "ema_momentum")


def train_config(
    config: TrialConfig,
    data: Path,
    folder: Path,
    *,
    note: Callable[[str], None],
    progress: Callable[[Progress], None],
    device: str = "cpu",
) -> None:
    """Trains a config in full and leaves a run with its model and scores.

    Args:
        config: what to train.
        data: the folder that holds its category.
        folder: the run, which must not exist.
        note: called with notes for the user.
        progress: called at every report.
        device: the device to train on.

    Raises:
        UserError: the data cannot be used, the run exists, or a loss is not finite.
        KeyboardInterrupt: as it came, but saying how far the training got.
    """
    create_run(folder.parent, folder.name)
    with removed_on_error(folder):
        config = with_chosen_objective(config, data)
        read = prepare_category(config, data, device)
        write_settings(
            folder,
            RunSettings(
                name=folder.name,
                categories=(config.category,),
                data=config.data,
                seed=config.seed,
                objective=spelled_out(config.objective),
                searched={config.category: _SHOWN_SETTINGS},
                config=spelled_out(config),
                datasets={config.category: DatasetRecord(**read.summary())},
                **describe_machine(),
            ),
        )
    for text in read.notes:
        note(text)
    tables = RunTables(folder)
    tables.start(_TRIAL, config, role="config")
    checkpoints = folder / "checkpoint"

    def report(latest: Progress) -> None:
        tables.report(_TRIAL, latest)
        progress(latest)

    try:
        run_trial(config, read.trial, report, checkpoints, device, note)
        tables.end(_TRIAL, "complete")
    except TrialError as failure:
        tables.end(_TRIAL, "failed", str(failure))
        raise UserError(f"{failure}; lower train.learning_rate") from failure
    except KeyboardInterrupt as interrupt:
        step = tables.trials[_TRIAL]["step"]
        tables.end(_TRIAL, "interrupted")
        raise type(interrupt)(
            f"interrupted: the last report was at step {step} of {config.train.num_steps}; "
            f"its checkpoint and tables are in {folder}"
        ) from interrupt
    finally:
        tables.write()
    finalize(folder, {config.category: read}, {_TRIAL: config}, lambda _: checkpoints, device)
