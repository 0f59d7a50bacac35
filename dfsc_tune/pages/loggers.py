"""Passes a run's reports on to TensorBoard or MLflow, during or after the run.

Both read only the run's files, so they work from any machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dfsc_tune.errors import UserError, first_line
from dfsc_tune.results import Run

Follower = Callable[[Run], None]
"""Called with the run as it is now; passes on what is new since the last call."""

# MLflow's words.
_STATUS = {"failed": "FAILED", "interrupted": "KILLED"}
_METRICS = ("auroc_mean", "auroc_logical", "auroc_structural", "loss_total", "loss_dfsc")


def tensorboard_follower(folder: Path, run: Run) -> Follower:
    """Writes event files into `folder/<run>/`, one folder for each trial.

    Raises:
        UserError: tensorboardX is not installed, or the folder has the run already.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(_missing("tensorboardX", "tensorboard")) from error
    target = folder / run.folder.name
    if target.exists():
        raise UserError(f"{target} exists already; delete it or give another folder")
    news = _News()
    writers: dict[str, Any] = {}

    def follow(run: Run) -> None:
        for trial, rows, has_ended in news.of(run):
            name = str(trial["trial"])
            if name not in writers:
                writers[name] = SummaryWriter(str(target / f"{trial['category']}_{name}"))
                settings = (f"    {key}: {value}" for key, value in _settings(run, trial).items())
                writers[name].add_text("settings", "\n".join(settings), 0)
            for row in rows.to_dict("records"):
                for metric, value in _finite(row).items():
                    writers[name].add_scalar(metric, value, int(row["step"]))
            writers[name].flush()
            # An interrupted trial may continue.
            if has_ended and trial["state"] != "interrupted":
                writers[name].close()

    return follow


def mlflow_follower(uri: str, run: Run) -> Follower:
    """Logs an experiment with the run's name, with one MLflow run for each trial.

    Args:
        uri: address of a tracking server or store for MLflow, such as http://localhost:5000 or
            sqlite:///mlflow.db.
        run: the run that names the experiment.

    Raises:
        UserError: mlflow is not installed, or the store cannot be used or has the run already.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise UserError(_missing("mlflow", "mlflow")) from error
    try:
        client = MlflowClient(uri)
        experiment = client.create_experiment(run.folder.name)
    except MlflowException as error:
        raise UserError(
            f"MLflow at {uri} refuses the experiment '{run.folder.name}' ({first_line(error)}); "
            "delete the one that it has, or give another store"
        ) from error
    news = _News()
    known: dict[str, str] = {}

    def follow(run: Run) -> None:
        for trial, rows, has_ended in news.of(run):
            name = str(trial["trial"])
            if name not in known:
                known[name] = client.create_run(experiment, run_name=name).info.run_id
                params = [Param(key, str(x)) for key, x in _settings(run, trial).items()]
                tags = [RunTag(key, str(trial[key])) for key in ("category", "role")]
                client.log_batch(known[name], params=params, tags=tags)
            now = int(time.time() * 1000)
            metrics = [
                Metric(metric, value, now, int(row["step"]))
                for row in rows.to_dict("records")
                for metric, value in _finite(row).items()
            ]
            client.log_batch(known[name], metrics=metrics)
            if has_ended:
                client.set_tag(known[name], "state", str(trial["state"]))
                client.set_terminated(known[name], _STATUS.get(str(trial["state"]), "FINISHED"))

    return follow


class _News:
    """Keeps track of the reports of a run that were passed on."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._states: dict[str, str] = {}

    def of(self, run: Run) -> Iterator[tuple[Mapping[str, Any], pd.DataFrame, bool]]:
        """Yields each trial with news, its new reports, and whether it has just ended."""
        own = run.reports[run.reports["own_momentum"]]
        groups = {str(name): rows.sort_values("step") for name, rows in own.groupby("trial")}
        for row in run.trials.to_dict("records"):
            trial = {str(key): value for key, value in row.items()}
            name = str(trial["trial"])
            rows = groups.get(name, own.iloc[:0])
            new = rows[rows["step"] > self._steps.get(name, -1)]
            has_ended = trial["state"] not in ("running", self._states.get(name))
            self._states[name] = str(trial["state"])
            if len(new) or has_ended:
                self._steps[name] = max(new["step"], default=self._steps.get(name, -1))
                yield trial, new, has_ended


def _settings(run: Run, trial: Mapping[str, Any]) -> dict[str, Any]:
    return {name: trial[name] for name in run.settings.searched[trial["category"]]}


def _finite(report: Mapping[Any, Any]) -> dict[str, float]:
    """Returns the metrics of a report that are finite."""
    return {name: float(report[name]) for name in _METRICS if math.isfinite(report[name])}


def _missing(package: str, extra: str) -> str:
    return f"this needs {package}: install the extra, pip install 'dfsc-tune[{extra}]'"
