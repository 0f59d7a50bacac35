"""Whole searches through the command line and a real local Ray, small and short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dfsc_tune import results
from dfsc_tune.config import TrialConfig
from dfsc_tune.settings import load
from tests.support.commands import invoke
from tests.support.processes import ENVIRONMENT, run, session_of, start
from tests.support.trays import CATEGORY, make_tray

SPACE = """\
fixed:
  model: {network: tiny, image_size: 128, teacher: random}
  train: {learning_rate: 1e-3, extra_ema_momenta: [0.0]}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
  ema_momentum: {type: float, low: 0.5, high: 0.9, scale: log_complement}
budget: {num_trials: 5, num_steps: 12, report_interval: 4, grace_period: 4, reduction_factor: 2}
"""
pytestmark = pytest.mark.slow


def space_file(folder: Path, text: str = SPACE) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A finished search of both categories of a data folder."""
    work = tmp_path_factory.mktemp("work")
    make_tray(work / "data")
    make_tray(work / "data", "box")
    done = run(
        "search", "--data", "data", "--category", "all", "--space", space_file(work),
        "--name", "first", cwd=work,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return work, done


@pytest.fixture
def work(
    finished: tuple[Path, subprocess.CompletedProcess], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Where that search was made, as the current folder: what needs no Ray runs in no process."""
    monkeypatch.chdir(finished[0])
    return finished[0]


def test_the_search_tells_what_it_found_and_where(
    finished: tuple[Path, subprocess.CompletedProcess],
) -> None:
    _, done = finished
    for text in ("best of run first", "margin=", "95% interval", "unseen", "results/first/models"):
        assert text in done.stdout
    assert "next: dfsc-tune predict" in done.stderr
    assert "10/10" in done.stderr
    assert "random features" in done.stderr


def test_a_run_leaves_what_the_design_says(
    finished: tuple[Path, subprocess.CompletedProcess],
) -> None:
    run_folder = finished[0] / "results" / "first"
    for name in ("run.yaml", "trials.parquet", "reports.parquet", "scores.parquet"):
        assert (run_folder / name).is_file()
    for category in (CATEGORY, "box"):
        assert (run_folder / "models" / category / "model.safetensors").is_file()
        assert load(run_folder / "best" / f"{category}.yaml", TrialConfig).category == category
    settings = yaml.safe_load((run_folder / "run.yaml").read_text())
    assert settings["versions"]["ray"]
    assert settings["datasets"]["box"]["selection"] == {"good": 2, "logical": 2, "structural": 2}


def test_tables_hold_every_trial_report_and_score(
    finished: tuple[Path, subprocess.CompletedProcess],
) -> None:
    loaded = results.load(finished[0] / "results" / "first")
    trials, reports, scores = loaded.trials, loaded.reports, loaded.scores
    assert len(trials) == 10
    assert set(trials["category"]) == {CATEGORY, "box"}
    assert set(trials["state"]) <= {"complete", "pruned"}
    assert (trials["step"] == 12).equals(trials["state"] == "complete")
    for _, papers in trials[trials["role"] == "paper"].groupby("category"):
        assert papers["state"].tolist() == ["complete"]
    own = reports[reports["own_momentum"]]
    by_trial = trials.set_index("trial").sort_index()
    of_reports = own.sort_values("step").groupby("trial")
    assert of_reports["step"].last().tolist() == by_trial["step"].tolist()
    assert of_reports.size().tolist() == (by_trial["step"] // 4).tolist()
    assert of_reports["auroc_mean"].last().tolist() == by_trial["value"].tolist()
    assert (reports["ema_momentum"] == 0).sum() == len(own)
    report_part = scores[scores["role"] == "best"].groupby(["category", "kind"]).size()
    assert (report_part == 2).all()
    assert len(report_part) == 6


def test_the_report_part_was_not_what_the_search_saw(
    finished: tuple[Path, subprocess.CompletedProcess],
) -> None:
    work, _ = finished
    from dfsc_tune.config import ObjectiveConfig
    from dfsc_tune.data.layout import read_category
    from dfsc_tune.training.objectives import split_test

    scores = results.load(work / "results" / "first").scores
    for category in (CATEGORY, "box"):
        split = split_test(read_category(work / "data", category), ObjectiveConfig())
        scored = set(scores.loc[scores["category"] == category, "image"])
        assert scored == {record.name for record in split.report}


def test_optuna_knows_each_category_as_a_study(
    finished: tuple[Path, subprocess.CompletedProcess],
) -> None:
    run_folder = finished[0] / "results" / "first"
    storage = JournalStorage(JournalFileBackend(str(run_folder / "study.journal")))
    trials = results.load(run_folder).trials
    for category in (CATEGORY, "box"):
        study = optuna.load_study(study_name=f"first/{category}", storage=storage)
        states = [trial.state for trial in study.get_trials()]
        ours = trials[trials["category"] == category]["state"]
        # The paper's momentum lies outside this space: its trials are not told.
        assert len(states) == 3
        assert states.count(TrialState.RUNNING) == 0
        assert states.count(TrialState.COMPLETE) <= (ours == "complete").sum()


def test_best_trains_again_to_the_same_scores(work: Path) -> None:
    # A search gives each trial one thread here; with as many, training is bit for bit the same.
    config = Path("results/first/best/box.yaml")
    done = invoke("train", "--config", config, "--name", "again", "--threads", "1")
    assert done.exit_code == 0, done.stderr
    first, again = (results.load(work / "results" / name).scores for name in ("first", "again"))
    first = first[(first["category"] == "box") & (first["role"] == "best")]
    merged = first.merge(again, on="image")
    assert len(merged) == len(first) == len(again)
    assert merged["score_x"].tolist() == merged["score_y"].tolist()


@pytest.mark.usefixtures("work")
def test_best_and_runs_print_json() -> None:
    summaries = json.loads(invoke("best", "first", "--json").stdout)
    assert [summary["category"] for summary in summaries] == ["box", CATEGORY]
    assert summaries[0]["settings"].keys() == {"margin", "ema_momentum"}
    rows = json.loads(invoke("runs", "--json").stdout)
    assert rows[0]["run"] in ("again", "first")


def test_evaluate_leaves_out_what_the_model_was_chosen_on(work: Path) -> None:
    model = Path("results/first/models") / CATEGORY
    honest = json.loads(invoke("evaluate", model, "--json").stdout)
    assert honest["num_images"] == {"good": 2, "logical": 2, "structural": 2}
    assert not honest["optimistic"]
    assert honest["pixel"] is None
    assert any("no mask" in note for note in honest["notes"])
    scores = results.load(work / "results" / "first").scores
    ours = scores[(scores["category"] == CATEGORY) & (scores["role"] == "best")]
    from dfsc_tune.metrics.image import judge

    assert honest["aurocs"] == judge(ours["score"].to_numpy(), ours["kind"].tolist())
    assert "OPTIMISTIC" in invoke("evaluate", model, "--include-selection").stdout


def test_predict_scores_files_and_folders(work: Path, tmp_path: Path) -> None:
    model = work / "results" / "first" / "models" / CATEGORY
    folder = tmp_path / "incoming"
    shutil.copytree(work / "data" / CATEGORY / "test" / "good", folder)
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    done = run(
        "predict", model, folder, "--heatmaps", tmp_path / "heat", "--output",
        tmp_path / "scores.parquet", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "broken.png" in done.stderr
    rows = json.loads(done.stdout)["images"]
    assert [row["score"] is None for row in rows] == ["broken" in row["image"] for row in rows]
    assert sorted(x.name for x in (tmp_path / "heat").iterdir()) == [
        f"{index:03d}.png" for index in range(4)
    ]
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert len(table) == 5
    assert table["score"].notna().sum() == 4


def long_search(folder: Path) -> subprocess.Popen[str]:
    """A search that takes long, two of whose trials have reported: both at once, on one GPU."""
    make_tray(folder / "data")
    text = SPACE.replace("num_steps: 12", "num_steps: 2000").replace(
        "num_trials: 5", "num_trials: 9"
    )
    process = start(
        "search", "--data", "data", "--category", CATEGORY, "--space", space_file(folder, text),
        "--name", "x", "--gpus", "1", "--gpus-per-trial", "0.5", "--device", "cpu", cwd=folder,
    )  # fmt: skip
    reports = folder / "results" / "x" / "reports.parquet"
    deadline = time.monotonic() + 300
    while not (reports.exists() and pd.read_parquet(reports)["trial"].nunique() == 2):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return process


@pytest.fixture
def searching(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """What `long_search` gives, none of whose processes outlives the test."""
    process = long_search(tmp_path)
    yield process
    for each in session_of(process):
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_search_that_is_asked_to_end_keeps_the_books_and_says_how_to_resume(
    tmp_path: Path, searching: subprocess.Popen[str], number: signal.Signals
) -> None:
    process = searching
    if number == signal.SIGINT:
        # As a terminal sends Ctrl-C: to the group.
        os.killpg(process.pid, number)
    else:
        # As systemd, some containers and a dropped ssh do: to all, trials and Ray's included.
        for each in session_of(process):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 128 + number, stderr
    assert not session_of(process), "processes were left behind"
    assert "Traceback" not in stderr
    assert "of 9 trials ended; go on: dfsc-tune resume x" in stderr
    loaded = results.load(tmp_path / "results" / "x")
    # Two at once on one GPU.
    assert loaded.trials["state"].tolist() == ["interrupted"] * 2
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "results" / "x" / "study.journal")))
    study = optuna.load_study(study_name=f"x/{CATEGORY}", storage=storage)
    assert TrialState.RUNNING not in {trial.state for trial in study.get_trials()}


@pytest.mark.parametrize("server", ["raylet", "gcs_server"])
def test_a_search_that_loses_ray_says_so_and_how_to_go_on(
    tmp_path: Path, searching: subprocess.Popen[str], server: str
) -> None:
    process = searching
    for each in psutil.Process(process.pid).children():
        if each.name() == server:
            each.kill()
    # Ray itself would end it, after 15 or 61 seconds, with status 1.
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("error: the search broke off (Ray's ")
    assert "continue with `dfsc-tune resume x`" in stderr
    loaded = results.load(tmp_path / "results" / "x")
    assert loaded.trials["state"].tolist() == ["interrupted"] * 2


NO_OP = """
import sys, time
from pathlib import Path
from unittest import mock
from rich.console import Console
from ray import tune
from dfsc_tune.search import run
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.spaces.space import load_space

times = Path("times").resolve()

def no_op(config, *, data, checkpoints, num_threads, device):
    with times.open("a") as file:
        print(time.time(), file=file)
    aurocs = {"auroc_logical": 0.5, "auroc_structural": 0.5, "auroc_mean": 0.5}
    momentum = config["trial_config"]["train"]["ema_momentum"]
    steps = config["trial_config"]["train"]["num_steps"]
    tune.report({"device": device, "step": steps, "value": 0.5, "seconds": 0.0, "losses": [],
                 "metrics": [{"ema_momentum": momentum, **aurocs}]})

with mock.patch("dfsc_tune.search.tune.tune_trial", no_op), mock.patch.object(run, "finalize"):
    request = SearchRequest(
        ("tray",), Path("data"), None, load_space("space.yaml"), Path("results"), "x"
    )
    run.run_search(request, Console(stderr=True))
"""


def test_the_tuner_costs_little_per_trial(tmp_path: Path) -> None:
    """The goal is under 1.5 s a trial; measured between trials, so that start-up does not count."""
    make_tray(tmp_path / "data")
    space_file(tmp_path, SPACE.replace("num_trials: 5", "num_trials: 24"))
    done = subprocess.run(
        [sys.executable, "-c", NO_OP], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    began = sorted(map(float, (tmp_path / "times").read_text().split()))
    assert len(began) == 24
    assert (began[-1] - began[3]) / 20 < 1.5
