"""TensorBoard and MLflow, read back with the real libraries."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dfsc_tune.errors import UserError
from dfsc_tune.pages.loggers import mlflow_follower, tensorboard_follower
from dfsc_tune.results import REPORTS, TRIALS, Run, load, write_table
from tests.support.commands import invoke
from tests.support.synthetic_run import CATEGORY, make_run

pytestmark = [
    pytest.mark.slow,
    # Of the libraries themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database without any run: making its tables takes seconds."""
    mlflow = pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_store, tmp_path))


@pytest.fixture
def stages(tmp_path: Path) -> list[Run]:
    """A run of four trials: its first one at step 40, interrupted there, and after its end."""
    folder = make_run(tmp_path / "first", num_trials=4)
    ended = load(folder)
    trials = pq.read_table(folder / TRIALS).to_pylist()
    reports = pq.read_table(folder / REPORTS).to_pylist()
    name = trials[0]["trial"]
    early = [row for row in reports if row["trial"] == name and row["step"] <= 40]
    write_table(folder, REPORTS, early)
    found = []
    for state in ("running", "interrupted"):
        write_table(folder, TRIALS, [{**trials[0], "state": state, "step": 40}])
        found.append(load(folder))
    write_table(folder, TRIALS, trials)
    write_table(folder, REPORTS, reports)
    return [*found, ended]


def curve(run: Run, trial: str) -> list[tuple[int, float]]:
    rows = run.reports[run.reports["own_momentum"] & (run.reports["trial"] == trial)]
    return list(zip(rows["step"], rows["auroc_mean"], strict=True))


def test_event_files_hold_every_report_once(stages: list[Run], tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    before, interrupted, ended = stages
    follow = tensorboard_follower(tmp_path / "events", before)
    for run in (before, before, interrupted, ended):
        follow(run)
    for trial in ended.trials.query("state != 'failed'")["trial"]:
        folder = tmp_path / "events" / "first" / f"{CATEGORY}_{trial}"
        events = accumulators.EventAccumulator(str(folder)).Reload()
        found = [(x.step, x.value) for x in events.Scalars("auroc_mean")]
        assert [step for step, _ in found] == [step for step, _ in curve(ended, trial)]
        assert [value for _, value in found] == pytest.approx(
            [value for _, value in curve(ended, trial)]
        )
    with pytest.raises(UserError, match="exists already"):
        tensorboard_follower(tmp_path / "events", before)


def test_mlflow_holds_every_trial_and_report(stages: list[Run], store: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    before, interrupted, ended = stages
    uri = f"sqlite:///{store}"
    follow = mlflow_follower(uri, before)
    follow(before)
    follow(interrupted)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("first")
    (killed,) = client.search_runs([experiment.experiment_id])
    assert killed.info.status == "KILLED"
    follow(ended)
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(found) == set(ended.trials["trial"])
    for row in ended.trials.to_dict("records"):
        logged = found[row["trial"]]
        history = client.get_metric_history(logged.info.run_id, "auroc_mean")
        assert [(x.step, x.value) for x in history] == curve(ended, row["trial"])
        assert float(logged.data.params["margin"]) == row["margin"]
        assert logged.data.tags["state"] == row["state"]
        assert logged.info.status == ("FAILED" if row["state"] == "failed" else "FINISHED")
    with pytest.raises(UserError, match="refuses the experiment 'first'"):
        mlflow_follower(uri, before)


def test_one_flag_each(store: Path, tmp_path: Path) -> None:
    before = store.read_bytes()
    make_run(tmp_path / "first", num_trials=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = invoke(
            "watch", "first", "--results", tmp_path,
            "--tensorboard", tmp_path / "events", "--mlflow", f"sqlite:///{store}",
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "events" / "first").glob("*/events*"))) == 3
    assert store.read_bytes() != before
