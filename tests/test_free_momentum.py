"""The free EMA momentum: one training scores several, the best counts and is what is published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfsc_tune import results
from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.models.detector import load_detector
from dfsc_tune.progress import Progress
from dfsc_tune.search.finalize import finalize
from dfsc_tune.search.searcher import StudySearcher
from dfsc_tune.search.single import train_config
from dfsc_tune.search.study import CategoryStudy
from dfsc_tune.settings import load, loads
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.training.prepare import CategoryData, resident
from dfsc_tune.training.train import Training
from dfsc_tune.training.trial import run_trial
from tests.support.synthetic_run import run_settings

SPACE = """\
fixed:
  model: {network: tiny, image_size: 128, teacher: random}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
  ema_momentum: {type: free, choices: [0.0, 0.9, 0.99]}
budget: {num_trials: 4, num_steps: 8, report_interval: 4, grace_period: 4}
"""


def searcher() -> StudySearcher:
    of_category = loads(SPACE, SearchSpace, "x").for_category("tray")
    base = of_category.base_config("tray", train={"num_steps": 8, "report_interval": 4})
    study = CategoryStudy(of_category, name="x", num_trials=4)
    return StudySearcher({"tray": study}, {"tray": base})


def test_all_but_the_papers_trials_choose_among_the_momenta() -> None:
    ours = searcher()
    suggested = [ours.suggest(str(index)) for index in range(3)]
    trains = [x.config.train for x in suggested if x is not None]
    assert [x.choose_ema_momentum for x in trains] == [False, False, True]
    assert [x.ema_momentum for x in trains[:2]] == [0.99, 0.99]
    assert all(set(x.ema_momenta) == {0.0, 0.9, 0.99} for x in trains)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("margin: {type: float, low: 0.0, high: 2.0}", "margin: {type: free, choices: [0, 1]}",
         "4: parameters.margin: only ema_momentum can be of type 'free'"),
        ("[0.0, 0.9, 0.99]", "[0.9]", "5: parameters.ema_momentum.choices: "),
        ("[0.0, 0.9, 0.99]", "[0.9, 0.9]", "5: parameters.ema_momentum: a choice is given twice"),
        ("[0.0, 0.9, 0.99]", "[0.9, 1.0]", "5: parameters.ema_momentum.choices.1: must be less"),
        ("  margin: {type: float, low: 0.0, high: 2.0}\n", "", "3: parameters: nothing to search"),
        ("budget:", "starting_points: [{ema_momentum: 0.9}]\nbudget:",
         "6: starting_points.0.ema_momentum: is free"),
        ("  model: {", "  train: {extra_ema_momenta: [0.5]}\n  model: {",
         "2: fixed.train.extra_ema_momenta: belongs under parameters.ema_momentum.choices"),
    ],
)  # fmt: skip
def test_what_cannot_be_free_is_refused(old: str, new: str, message: str) -> None:
    assert old in SPACE
    with pytest.raises(UserError) as error:
        loads(SPACE.replace(old, new, 1), SearchSpace, "space.yaml")
    assert message in str(error.value)


@pytest.fixture(scope="module")
def finalized(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrialConfig, list[Progress]]:
    """A run of one trial that may choose, published."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("results") / "run"
    momenta = {"ema_momentum": 0.99, "extra_ema_momenta": (0.0, 0.9), "choose_ema_momentum": True}
    config = trial_config.model_copy(
        update={"train": trial_config.train.model_copy(update=momenta)}
    )
    results.create_run(folder.parent, folder.name)
    results.write_settings(
        folder,
        run_settings(
            (config.category,),
            objective=config.objective.model_dump(),
            searched={config.category: ["margin", "ema_momentum"]},
            datasets={config.category: category_data.summary()},
        ),
    )
    tables = results.RunTables(folder)
    tables.start("a", config, role="sampler")
    reports: list[Progress] = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        tables.report("a", progress)

    run_trial(config, category_data.trial, report, folder / "checkpoint")
    tables.end("a", "complete")
    tables.write()
    finalize(
        folder, {config.category: category_data}, {"a": config}, lambda _: folder / "checkpoint"
    )
    return folder, config, reports


def test_the_best_momentum_counts_at_each_report(
    finalized: tuple[Path, TrialConfig, list[Progress]],
) -> None:
    folder, _, reports = finalized
    for progress in reports:
        values = {momentum: x["auroc_mean"] for momentum, x in progress.metrics.items()}
        assert len(values) == 3
        assert progress.value == values[progress.ema_momentum] == max(values.values())
    run = results.load(folder)
    row = run.trials.iloc[0]
    assert (row["ema_momentum"], row["value"]) == (reports[-1].ema_momentum, reports[-1].value)
    counting = run.reports[run.reports["own_momentum"]]
    assert counting["ema_momentum"].tolist() == [x.ema_momentum for x in reports]
    assert len(run.reports) == 6


def test_what_is_published_is_that_average(
    finalized: tuple[Path, TrialConfig, list[Progress]], category_data: CategoryData
) -> None:
    folder, config, reports = finalized
    momentum = reports[-1].ema_momentum
    best = load(folder / "best" / f"{config.category}.yaml", TrialConfig)
    assert best.train.ema_momenta == (momentum,)
    assert not best.train.choose_ema_momentum
    training = Training(config, resident(category_data.trial, "cpu"))
    training.run(config.train.num_steps)
    student = load_detector(folder / "models" / config.category).student
    average = training.averages[momentum]
    for ours, theirs in zip(student.parameters(), average.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_published_config_trains_to_the_same_scores(
    finalized: tuple[Path, TrialConfig, list[Progress]], data_folder: Path, tmp_path: Path
) -> None:
    folder, config, _ = finalized
    best = load(folder / "best" / f"{config.category}.yaml", TrialConfig)
    train_config(
        best, data_folder, tmp_path / "again", note=lambda text: None, progress=lambda x: None
    )
    first, again = (results.load(x).scores for x in (folder, tmp_path / "again"))
    assert first["score"].tolist() == again["score"].tolist()
