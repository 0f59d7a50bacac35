"""The split into selection and report part, and what is judged."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from dfsc_tune.cli.options import OBJECTIVE_HELP
from dfsc_tune.config import ObjectiveConfig, ObjectiveName, TrialConfig
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.errors import UserError
from dfsc_tune.metrics.image import judge
from dfsc_tune.progress import Progress
from dfsc_tune.training.objectives import (
    OBJECTIVES,
    Objective,
    Split,
    chosen_objective,
    objective_named,
    objective_value,
    refusals,
    split_test,
)
from dfsc_tune.training.objectives.holdout import Holdout
from dfsc_tune.training.objectives.oracle import Oracle
from dfsc_tune.training.objectives.synthetic import Synthetic
from dfsc_tune.training.prepare import prepare_category
from dfsc_tune.training.trial import run_trial


def category(**counts: int) -> Category:
    """Test images by `<kind>_<defect type>` and count."""
    test = []
    for key, count in counts.items():
        kind, _, defect_type = key.partition("_")
        for index in range(count):
            name = f"test/{key}/{index:03d}.png"
            test.append(ImageRecord(Path(name), name, kind, defect_type or kind))
    validation = tuple(ImageRecord(Path(x), x, "good", "good") for x in ("a.png", "b.png"))
    return Category("tray", Path("data/tray"), "loco", (), validation, tuple(test))


def names(records: tuple[ImageRecord, ...]) -> set[str]:
    return {record.name for record in records}


def test_holdout_parts_are_disjoint_complete_and_stratified() -> None:
    data = category(good=10, logical_missing=6, logical_extra=5, structural_scratch=8)
    split = split_test(data, ObjectiveConfig())
    assert names(split.selection) | names(split.report) == names(data.test)
    assert not names(split.selection) & names(split.report)
    for defect_type, count in (("good", 10), ("missing", 6), ("extra", 5), ("scratch", 8)):
        seen = sum(record.defect_type == defect_type for record in split.selection)
        assert abs(seen - count / 2) <= 0.5


def test_the_split_depends_on_the_seed_only() -> None:
    data = category(good=20, logical_a=20)
    shuffled = replace(data, root=Path("elsewhere"), test=data.test[::-1])
    assert names(split_test(data, ObjectiveConfig()).selection) == names(
        split_test(shuffled, ObjectiveConfig()).selection
    )
    other = split_test(data, ObjectiveConfig(split_seed=1))
    assert names(other.selection) != names(split_test(data, ObjectiveConfig()).selection)


def test_a_larger_share_may_be_seen() -> None:
    split = split_test(category(good=10, logical_a=10), ObjectiveConfig(selection_share=0.8))
    assert (len(split.selection), len(split.report)) == (16, 4)


def test_oracle_gives_all_to_both_and_says_so() -> None:
    data = category(good=3, structural_a=3)
    split = split_test(data, ObjectiveConfig(name="oracle"))
    assert split.selection == split.report == data.test
    assert "optimistic" in split.notes[0]


def test_types_too_small_to_split_are_named() -> None:
    split = split_test(category(good=4, logical_a=1, structural_b=4), ObjectiveConfig())
    assert "test/logical_a/000.png" in names(split.selection)
    assert any("too few logical" in note for note in split.notes)


def test_missing_kinds_are_named() -> None:
    split = split_test(category(good=4, structural_b=4), ObjectiveConfig(name="holdout"))
    assert any("no logical anomalies" in note for note in split.notes)


@pytest.mark.parametrize(
    ("counts", "objective", "message"),
    [
        ({"good": 5}, {"name": "holdout"}, "no labelled anomalies"),
        ({"good": 1, "logical_a": 5}, {"name": "holdout"}, "at least 2"),
        ({"logical_a": 5}, {"name": "oracle"}, "at least 1"),
        ({"good": 5, "logical_a": 1}, {"name": "holdout"}, "'tray' in .* single image"),
        (
            {"good": 5, "logical_a": 5},
            {"name": "holdout", "metric": "structural"},
            "no structural anomalies",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    counts: dict[str, int], objective: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        split_test(category(**counts), ObjectiveConfig(**objective))


def test_the_mean_is_of_the_two_kinds_not_pooled() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.15, 0.25])
    kinds = ["good", "good", "logical", "logical", "structural", "structural"]
    aurocs = judge(scores, kinds)
    assert aurocs == {"auroc_logical": 1.0, "auroc_structural": 0.75, "auroc_mean": 0.875}
    assert objective_value(aurocs, "mean") == 0.875
    assert objective_value(aurocs, "structural") == 0.75


def test_without_one_kind_the_mean_is_of_the_other() -> None:
    aurocs = judge(np.array([0.1, 0.9]), ["good", "structural"])
    assert aurocs == {"auroc_logical": None, "auroc_structural": 1.0, "auroc_mean": 1.0}


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [
        ({"good": 4, "logical_a": 3, "structural_b": 2}, "holdout"),
        ({"good": 4, "logical_a": 4}, "synthetic"),
        ({"good": 9}, "synthetic"),
        ({"logical_a": 9}, "synthetic"),
        ({}, "synthetic"),
    ],
)
def test_auto_needs_labels_enough_for_a_holdout(counts: dict[str, int], chosen: str) -> None:
    assert chosen_objective(category(**counts), ObjectiveConfig()).name == chosen
    named = ObjectiveConfig(name="oracle")
    assert chosen_objective(category(**counts), named) == named


def test_synthetic_keeps_all_labelled_images_for_the_report() -> None:
    data = category(good=4, logical_a=4)
    split = split_test(data, ObjectiveConfig(name="synthetic"))
    assert split.selection == ()
    assert split.report == data.test


def test_a_search_without_labels_needs_two_validation_images() -> None:
    data = category(good=4, logical_a=4)
    data = replace(data, validation=data.validation[:1])
    with pytest.raises(UserError, match="1 validation image, and synthetic anomalies are made"):
        split_test(data, ObjectiveConfig(name="synthetic"))


@pytest.mark.parametrize("name", ["auto", "synthetic"])
def test_without_good_test_images_a_search_asks_for_those(name: str) -> None:
    data = category(logical_a=9)
    split = split_test(data, ObjectiveConfig(name=name))
    assert "no good test images to tell the 9 defective ones from" in split.notes[1]
    few = replace(data, validation=data.validation[:1])
    with pytest.raises(UserError, match="put some good ones into test/good") as refused:
        split_test(few, ObjectiveConfig(name=name))
    assert "validation" not in str(refused.value)


def test_a_training_under_way_is_judged_by_a_quarter_of_each_recipe() -> None:
    recipes = ["exchanged"] * 8 + ["scar"] + ["stain"] * 5
    chosen = Synthetic().early_indices(recipes)
    assert [recipes[index] for index in chosen] == [*["exchanged"] * 2, "scar", *["stain"] * 2]
    assert len(set(chosen)) == len(chosen)
    assert Holdout().early_indices(recipes) == list(range(len(recipes)))


@pytest.mark.parametrize(
    ("num_steps", "report_interval", "expected"), [(100, 100, 80), (101, 100, 50), (600, 100, 30)]
)
def test_reports_look_at_fewer_anomalies_in_the_mean(
    num_steps: int, report_interval: int, expected: int
) -> None:
    assert Synthetic().num_scored(7, 80, num_steps, report_interval) == 7 + expected
    assert Holdout().num_scored(7, 80, num_steps, report_interval) == 87


def test_few_labels_are_said_to_choose_worse_than_made_anomalies() -> None:
    few = category(good=90, logical_a=40, structural_b=38)
    (note,) = split_test(few, ObjectiveConfig(name="holdout")).notes
    assert note.startswith("only 39 labelled anomalies choose")
    assert "--objective synthetic" in note
    many = category(good=90, logical_a=40, structural_b=40)
    assert split_test(many, ObjectiveConfig(name="holdout")).notes == ()


class Mixed(Objective):
    """Judges by one labelled image of each defect type and by anomalies made from good images."""

    name = "mixed"
    judges_validation = True
    early_every = 2

    def refusal(self, category: Category, settings: ObjectiveConfig) -> str | None:
        labelled = any(record.kind != "good" for record in category.test)
        return None if labelled else f"category '{category.name}' has no labelled anomalies"

    def divide(self, category: Category, settings: ObjectiveConfig) -> Split:
        seen = {x.defect_type: x for x in category.test if x.kind != "good"}.values()
        rest = tuple(record for record in category.test if record not in seen)
        return Split(tuple(seen), rest, anomalies={"scar": 4, "stain": 4})


def test_a_fourth_objective_is_one_class_and_its_registration(
    trial_config: TrialConfig, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(OBJECTIVES, Mixed.name, Mixed())
    assert refusals(category(good=4))["mixed"] == "category 'tray' has no labelled anomalies"
    assert "mixed" not in refusals(category(good=4, logical_a=1))
    # Settings know a name when `ObjectiveName` lists it.
    objective = trial_config.objective.model_copy(update={"name": "mixed"})
    config = trial_config.model_copy(update={"objective": objective})
    data = prepare_category(config, data_folder)
    assert data.objective.name == data.summary()["objective"] == "mixed"
    made = ["scar"] * 4 + ["stain"] * 4
    # The tray has three validation images and two defect types.
    seen = [x.defect_type for x in data.selection_records]
    assert seen == ["good"] * 3 + ["logical_anomalies", "structural_anomalies"] + made
    assert not {x.path for x in data.split.report} & {x.path for x in data.selection_records}
    reports: list[Progress] = []
    run_trial(config, data.trial, reports.append, tmp_path / "trial")
    assert [0 <= report.value <= 1 for report in reports] == [True, True]


def test_an_optimistic_objective_says_so_without_more_ado(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Mixed, "optimistic", True)
    objective = Mixed()
    split = objective.split(category(good=4, logical_a=4), ObjectiveConfig())
    assert split.notes == (objective.warning,)
    assert objective.report_images == "the images it was SELECTED ON (mixed: optimistic)"


def test_only_an_optimistic_objective_may_report_on_what_it_selected_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Oracle, "optimistic", False)
    with pytest.raises(AssertionError, match="oracle selects and reports on the same images"):
        Oracle().split(category(good=4, logical_a=4), ObjectiveConfig())


def test_settings_and_help_name_every_objective() -> None:
    assert get_args(ObjectiveName) == ("auto", *OBJECTIVES)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for name in OBJECTIVES:
        assert f"\n| `{name}` " in readme
        assert f"{name}: " in OBJECTIVE_HELP
    with pytest.raises(UserError, match="no objective 'luck'; this version knows holdout, synth"):
        objective_named("luck")
