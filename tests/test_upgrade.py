"""Runs survive upgrades: what an earlier version left is read, compared, replayed and resumed."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pydantic import Field

from dfsc_tune import __version__, results
from dfsc_tune.config import TrainConfig, TrialConfig
from dfsc_tune.results import LEDGER, SETTINGS, RunSettings
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.resume import request_of
from dfsc_tune.search.run import replayed_controller
from dfsc_tune.settings import spelled_out
from tests.support.commands import invoke
from tests.support.processes import run

RUNS = Path(__file__).parent / "assets" / "runs" / "0.1.0"
DATA = RUNS / "data"


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the finished run, or of the one that is asked for."""
    return Path(shutil.copytree(RUNS / getattr(request, "param", "finished"), tmp_path / "old"))


def tree_of(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((folder / SETTINGS).read_text())
    return tree


class LaterTrainConfig(TrainConfig):
    new_setting: float = 0.5
    beta2: float = 0.9


class LaterTrialConfig(TrialConfig):
    train: LaterTrainConfig = LaterTrainConfig()


class LaterRunSettings(RunSettings):
    base_configs: dict[str, LaterTrialConfig] = Field(default_factory=dict)  # type: ignore[assignment]


@pytest.mark.parametrize("name", ["finished", "interrupted"])
def test_the_digest_is_that_which_the_run_began_with(name: str) -> None:
    began = json.loads((RUNS / name / LEDGER).read_text().splitlines()[0])
    assert results.load(RUNS / name).settings.digest == began["settings"]


def test_a_new_setting_and_a_new_default_change_no_digest_and_other_values_do() -> None:
    tree = tree_of(RUNS / "interrupted")
    digest = RunSettings.model_validate(tree).digest
    later = LaterRunSettings.model_validate(tree)
    assert later.base_configs["tray"].train.new_setting == 0.5
    assert later.digest == digest
    # Nor once the later version has written the file again.
    assert LaterRunSettings.model_validate(yaml.safe_load(later.to_yaml())).digest == digest
    train = tree["base_configs"]["tray"]["train"]
    for changed in ({"new_setting": 0.25}, {"learning_rate": 0.02}):
        tree["base_configs"]["tray"]["train"] = {**train, **changed}
        assert LaterRunSettings.model_validate(tree).digest != digest


def test_a_new_run_says_every_setting_so_that_a_later_default_does_not_change_it() -> None:
    config = TrialConfig(category="tray")
    said = spelled_out(config).model_dump(exclude_unset=True)
    assert said == config.model_dump()
    assert LaterTrialConfig.model_validate(said).train.beta2 == config.train.beta2


@pytest.mark.parametrize("folder", ["finished", "interrupted"], indirect=True)
def test_a_file_that_is_written_again_says_what_it_said(folder: Path) -> None:
    before = tree_of(folder)
    results.write_settings(folder, results.read_settings(folder))
    assert tree_of(folder) == {"version": 2, **before}


def test_the_command_that_version_1_gave_as_one_text_is_parted(folder: Path) -> None:
    command = "dfsc-tune confirm nightly --top 3 --name 'a b'"
    text = (folder / SETTINGS).read_text()
    (folder / SETTINGS).write_text(f"{text}go_on_by: {json.dumps(command)}\n")
    settings = results.read_settings(folder)
    assert settings.continued_by == "confirm"
    assert settings.continued_with == ("nightly", "--top", "3", "--name", "a b")
    assert results.resume_command(folder) == command
    results.write_settings(folder, settings)
    assert results.read_settings(folder) == settings


def test_the_finished_run_is_read_and_shown(folder: Path) -> None:
    loaded = results.load(folder)
    (summary,) = results.summaries(loaded)
    assert len(loaded.trials) == 5
    assert set(summary.settings) == {"margin", "alpha", "ema_momentum"}
    where = ("--results", folder.parent)
    best = invoke("best", "old", *where)
    assert f"best of run old is trial {summary.trial}" in best.stdout
    page = invoke("report", "old", *where, "--data", DATA)
    assert page.exit_code == 0, page.output
    assert "Which settings mattered" in (folder / "report.html").read_text()


def test_runs_are_compared_and_the_interrupted_one_says_how_far_it_came(folder: Path) -> None:
    shutil.copytree(RUNS / "interrupted", folder.parent / "broken")
    where = ("--results", folder.parent)
    compared = invoke("compare", "old", "broken", *where)
    assert compared.exit_code == 0, compared.output
    assert "broken has no scores" in compared.stderr
    page = invoke("report", "broken", *where, "--no-pictures")
    assert page.exit_code == 0, page.output
    watched = invoke("watch", "broken", *where, "--once")
    assert "2 running of up to 5" in watched.stdout


def test_the_finished_run_is_replayed_to_the_same_end(folder: Path) -> None:
    loaded = results.load(folder)
    request = request_of(folder, DATA, str(DATA))
    with closing(Ledger(folder)) as ledger:
        controller = replayed_controller(request, loaded.settings.base_configs, folder, ledger)
        assert controller.is_finished
        states = {trial: row["state"] for trial, row in controller.tables.trials.items()}
        assert controller.tables.best["tray"]["trial"] == results.summaries(loaded)[0].trial
        controller.tables.write()
    assert states == loaded.trials.set_index("trial")["state"].to_dict()
    # A setting that came later is a column that the old table lacks.
    recorded = pd.read_parquet(RUNS / "finished" / "trials.parquet").columns
    assert results.load(folder).trials[recorded].equals(loaded.trials[recorded])


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["interrupted"], indirect=True)
def test_the_interrupted_run_is_resumed_to_its_end(folder: Path) -> None:
    recorded = (folder / LEDGER).read_bytes()
    done = run("resume", folder, "--data", DATA, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert "0 of 5 trials have ended, 2 go on" in done.stderr
    assert (folder / LEDGER).read_bytes().startswith(recorded)
    loaded = results.load(folder)
    assert set(loaded.trials["state"]) <= {"complete", "pruned"}
    assert len(loaded.trials) == 5
    assert len(results.summaries(loaded)) == 1
    began, (resumed,) = results.load(RUNS / "interrupted").settings, loaded.settings.resumed
    assert began.versions["dfsc-tune"] == "0.1.0"
    assert resumed.versions["dfsc-tune"] == __version__
    # It can be taken up again: this version has written run.yaml since.
    assert loaded.settings.digest == began.digest
    assert "is finished: 5 trials" in invoke("resume", folder).stderr
