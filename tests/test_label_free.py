"""Searches without labels: what they are judged by, what they may open, what they can say."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfsc_tune.config import ObjectiveConfig, ObjectiveName, TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.pages.page import write_page
from dfsc_tune.results import describe, summaries
from dfsc_tune.results import load as load_run
from dfsc_tune.results.status import status_of
from dfsc_tune.search.single import train_config
from dfsc_tune.settings import load
from dfsc_tune.training.objectives.synthetic import Synthetic
from dfsc_tune.training.prepare import prepare_category, resident
from dfsc_tune.training.train import Training
from dfsc_tune.training.trial import judge_training, run_trial
from tests.support.commands import invoke
from tests.support.trays import CATEGORY

OPENED: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and OPENED is not None:
        OPENED.append(str(arguments[0]))


# An audit hook cannot be taken away again, so it is told when to listen.
sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def judged_by(config: TrialConfig, name: ObjectiveName) -> TrialConfig:
    return config.model_copy(update={"objective": ObjectiveConfig(name=name, per_kind=7)})


@pytest.mark.parametrize("name", ["synthetic", "holdout"])
def test_a_trial_opens_no_image_that_its_objective_may_not_see(
    trial_config: TrialConfig, data_folder: Path, tmp_path: Path, name: ObjectiveName
) -> None:
    global OPENED
    config = judged_by(trial_config, name)
    data = prepare_category(config, data_folder)
    OPENED = []
    try:
        run_trial(config, data.trial, lambda progress: None, tmp_path)
        opened = OPENED
    finally:
        OPENED = None
    assert any(str(tmp_path) in path for path in opened), "the checkpoint at least"
    assert not [path for path in opened if str(data_folder) in path]
    # Nor was any of them given to it.
    hidden = {record.path for record in data.split.report}
    assert hidden
    assert not hidden & {record.path for record in data.trial.selection.records}


def test_a_synthetic_selection_is_the_good_validation_images_and_what_was_made_of_them(
    trial_config: TrialConfig, data_folder: Path
) -> None:
    data = prepare_category(judged_by(trial_config, "synthetic"), data_folder)
    selection, validation = data.trial.selection, data.trial.validation
    assert data.selection_records == (*validation.records, *selection.records)
    assert set(selection.kinds) == {"logical", "structural"}
    assert {x.path for x in selection.records} == {x.path for x in validation.records}
    assert data.split.report == data.category.test
    assert data.selection_digests == ()
    assert data.summary()["objective"] == "synthetic"


def test_auto_is_holdout_where_labels_suffice(trial_config: TrialConfig, data_folder: Path) -> None:
    assert prepare_category(trial_config, data_folder).objective.name == "holdout"


@pytest.fixture
def unlabelled(data_folder: Path, tmp_path: Path) -> Path:
    for split in ("train", "validation"):
        shutil.copytree(data_folder / CATEGORY / split, tmp_path / "data" / CATEGORY / split)
    return tmp_path / "data"


def test_a_config_without_labels_trains_and_says_what_is_unknown(
    trial_config: TrialConfig, unlabelled: Path, tmp_path: Path
) -> None:
    config = judged_by(trial_config, "auto")
    folder = tmp_path / "run"
    train_config(config, unlabelled, folder, note=lambda text: None, progress=lambda progress: None)
    run = load_run(folder)
    (summary,) = summaries(run)
    assert summary.objective == "synthetic"
    assert summary.aurocs["auroc_mean"] is None
    assert status_of(run).ended
    first, *others = describe(summary)
    assert "unknown" in first
    assert "synthetic anomalies" in others[0]
    assert load(folder / "best" / f"{CATEGORY}.yaml", TrialConfig).objective.name == "synthetic"
    write_page(run, unlabelled, folder / "report.html")
    assert "unknown" in (folder / "report.html").read_text()


def test_only_the_last_report_looks_at_all_anomalies(
    trial_config: TrialConfig, unlabelled: Path, tmp_path: Path
) -> None:
    objective = ObjectiveConfig(name="synthetic", recipes=("scar", "stain"), per_kind=16)
    train = trial_config.train.model_copy(update={"num_steps": 5, "report_interval": 2})
    config = trial_config.model_copy(update={"objective": objective, "train": train})
    seen: list[Counter[str]] = []

    class Counting(Synthetic):
        def judge(
            self, scores: np.ndarray, kinds: Sequence[str], defect_types: Sequence[str]
        ) -> dict[str, float | None]:
            seen.append(Counter(defect_types))
            return super().judge(scores, kinds, defect_types)

    data = replace(prepare_category(config, unlabelled).trial, objective=Counting())
    run_trial(config, data, lambda progress: None, tmp_path)
    early, late = ({"good": len(data.validation), "scar": n, "stain": n} for n in (2, 8))
    each = len(train.ema_momenta)
    assert seen == [early] * 2 * each + [late] * each


def test_a_report_scores_each_image_once(trial_config: TrialConfig, unlabelled: Path) -> None:
    objective = ObjectiveConfig(name="synthetic", recipes=("scar", "stain"), per_kind=16)
    config = trial_config.model_copy(update={"objective": objective})
    training = Training(config, resident(prepare_category(config, unlabelled).trial, "cpu"))
    networks = (training.autoencoder, *training.averages.values())
    passed: list[int] = []
    for network in networks:
        network.register_forward_pre_hook(lambda _, given: passed.append(len(given[0])))
    num_validation = len(training.data.validation)
    judge_training(training)
    assert sum(passed) == len(networks) * (num_validation + 2 * 8 // 4)
    training.run(config.train.num_steps)
    passed.clear()
    judge_training(training)
    assert sum(passed) == len(networks) * (num_validation + 2 * 8)


def test_one_good_image_is_too_few_to_make_anomalies_of(
    trial_config: TrialConfig, unlabelled: Path
) -> None:
    for path in list((unlabelled / CATEGORY / "validation" / "good").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match="two or more"):
        prepare_category(judged_by(trial_config, "synthetic"), unlabelled)


def test_images_of_which_no_anomaly_can_be_made_are_refused(
    trial_config: TrialConfig, unlabelled: Path
) -> None:
    for path in (unlabelled / CATEGORY / "validation" / "good").iterdir():
        Image.new("RGB", (64, 48), (90, 90, 90)).save(path)
    objective = ObjectiveConfig(name="synthetic", recipes=("removed",), per_kind=2)
    with pytest.raises(
        UserError, match=r"no anomalies could be made .* by objective.recipes: removed"
    ):
        prepare_category(trial_config.model_copy(update={"objective": objective}), unlabelled)


def test_synthesize_writes_a_sheet_and_counts(unlabelled: Path, tmp_path: Path) -> None:
    asked = ["data", "synthesize", "--category", CATEGORY, "--data", str(unlabelled)]
    asked += ["--image-size", "128", "--per-kind", "7", "--show"]
    found = invoke(*asked, str(tmp_path / "sheet.png"))
    assert found.exit_code == 0, found.output
    assert "structural scar" in found.stdout
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    wrong = invoke(*asked, str(tmp_path / "sheet.txt"))
    assert wrong.exit_code == 2
    assert "name it .png" in wrong.output
    wrong = invoke(*asked, str(tmp_path / "sheet.png"), "--recipe", "scratches")
    assert "no recipe 'scratches'; choose from exchanged" in wrong.output
