"""Starting points from earlier runs: which, moved into the new space, and never by seen images."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.data.fingerprint import content_digest
from dfsc_tune.errors import UserError
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.detector import Detector, save_detector
from dfsc_tune.models.pdn import build_pdn
from dfsc_tune.models.scoring import MapNormalization
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.warm_start import channel_distance, starting_point, with_warm_start
from dfsc_tune.settings import validate
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.training.objectives.oracle import Oracle
from dfsc_tune.training.prepare import CategoryData

SPACE = {
    "fixed": {"model": {"network": "tiny", "image_size": 128, "teacher": "random"}},
    "parameters": {
        "margin": {"type": "float", "low": 0.5, "high": 2.0},
        "alpha": {"type": "float", "low": 0.25, "high": 8.0, "scale": "log"},
        "ema_momentum": {"type": "free", "choices": [0.9, 0.99]},
    },
    "budget": {"num_trials": 8, "num_steps": 4, "report_interval": 4, "grace_period": 4},
}


def finalize(
    folder: Path, config: TrialConfig, data: CategoryData, shift: float, seen: tuple[str, ...] = ()
) -> None:
    """A model folder of a category whose channel means lie `shift` stds from the data's."""
    teacher = copy.deepcopy(data.trial.teacher)
    teacher.mean += shift * teacher.std
    channels = teacher.mean.shape[1]
    save_detector(
        folder,
        Detector(
            config=config,
            teacher=teacher,
            student=build_pdn("tiny", 2 * channels),
            autoencoder=build_autoencoder(config.model),
            normalization=MapNormalization((0.0, 1.0), (0.0, 1.0)),
            threshold=1.0,
            selection_digests=seen,
        ),
    )


def request_of(category: str, tmp_path: Path, **changes: object) -> SearchRequest:
    return SearchRequest(
        categories=(category,),
        data=tmp_path,
        data_name=None,
        space=validate(SearchSpace, SPACE | changes, source="test"),
        results=tmp_path,
        name="new",
        warm_start=(tmp_path / "old",),
    )


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_three_most_similar_categories_start_the_search_in_their_order(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path, console: Console
) -> None:
    for name, shift in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("d", 4.0)):
        config = trial_config.with_values({"margin": 0.2 * shift, "alpha": shift})
        finalize(tmp_path / "old" / "models" / name, config, category_data, shift)
    category = trial_config.category
    asked = request_of(category, tmp_path, starting_points=[{"margin": 1.5}])
    found = with_warm_start(asked, {category: category_data}, console)
    points = found.space.for_category(category).starting_points
    # A margin below the new range is moved to its end.
    assert points == (
        {"margin": 1.5},
        {"margin": 0.5, "alpha": 1.0},
        {"margin": 0.5, "alpha": 2.0},
        {"margin": pytest.approx(0.6), "alpha": 3.0},
    )
    assert "old/b (distance 1.00), old/c (distance 2.00), old/a" in said(console)


def test_nothing_chosen_on_images_of_the_report_part_is_a_start(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path, console: Console
) -> None:
    category = trial_config.category
    reported = content_digest(category_data.split.report[0].path)
    selected = content_digest(category_data.split.selection[0].path)
    for name, digest, margin in (("x", reported, 1.1), ("y", selected, 1.2)):
        config = trial_config.with_values({"margin": margin})
        finalize(tmp_path / "old" / "models" / name, config, category_data, 0.0, (digest,))
    asked = request_of(category, tmp_path)
    found = with_warm_start(asked, {category: category_data}, console)
    starts = found.space.for_category(category).starting_points
    assert [point["margin"] for point in starts] == [1.2]
    assert "old/x was chosen on images that this search reports on" in said(console)
    # Objective oracle reports on what it selects on, and says so: nothing is left to keep unseen.
    oracle = replace(category_data, trial=replace(category_data.trial, objective=Oracle()))
    found = with_warm_start(asked, {category: oracle}, console)
    assert len(found.space.for_category(category).starting_points) == 2


def test_models_of_another_teacher_come_last(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path, console: Console
) -> None:
    other = copy.deepcopy(category_data.trial.teacher)
    with torch.no_grad():
        next(other.pdn.parameters()).add_(1.0)
    others = replace(category_data, trial=replace(category_data.trial, teacher=other))
    models = tmp_path / "old" / "models"
    finalize(models / "a", trial_config.with_values({"margin": 1.1}), others, 0.0)
    finalize(models / "b", trial_config.with_values({"margin": 1.2}), category_data, 5.0)
    category = trial_config.category
    found = with_warm_start(request_of(category, tmp_path), {category: category_data}, console)
    starts = found.space.for_category(category).starting_points
    assert [point["margin"] for point in starts] == [1.2, 1.1]
    assert "old/a (with another teacher)" in said(console)


def test_channel_distance_is_in_units_of_the_pooled_deviation(
    category_data: CategoryData,
) -> None:
    one = category_data.trial.teacher
    other = copy.deepcopy(one)
    assert channel_distance(one, other) == 0
    other.mean += 2 * other.std
    assert channel_distance(one, other) == pytest.approx(2, rel=1e-5)
    other = copy.deepcopy(one)
    other.std *= 3
    # std and 3 std apart: 2 std, over a pooled deviation of sqrt(5) std.
    assert channel_distance(one, other) == pytest.approx(2 / 5**0.5, rel=1e-5)
    assert channel_distance(other, one) == channel_distance(one, other)


def test_a_starting_point_has_only_what_the_new_space_searches() -> None:
    parameters = {
        "optimizer": {"type": "categorical", "choices": ["adamw", "adam"]},
        "weight_decay": {
            "type": "float", "low": 1e-6, "high": 1e-3, "when": {"optimizer": "adamw"},
        },
        "seed": {"type": "int", "low": 3, "high": 9},
        "learning_rate": {"type": "categorical", "choices": [0.5]},
    }  # fmt: skip
    space = validate(SearchSpace, SPACE | {"parameters": parameters}, source="test")
    of_category = space.for_category("any")
    values = searchable_values(TrialConfig(category="any"))
    found = starting_point(of_category, {**values, "optimizer": "adam", "seed": 20})
    assert found == {"optimizer": "adam", "seed": 9}
    found = starting_point(of_category, {**values, "optimizer": "adamw", "weight_decay": 1.0})
    assert found == {"optimizer": "adamw", "weight_decay": 1e-3, "seed": 3}


def test_what_cannot_be_a_start_is_refused(
    trial_config: TrialConfig, category_data: CategoryData, tmp_path: Path, console: Console
) -> None:
    data = {trial_config.category: category_data}
    with pytest.raises(UserError, match="has no model to start from"):
        with_warm_start(request_of(trial_config.category, tmp_path), data, console)
    listed = request_of(
        trial_config.category, tmp_path, sampler="listed", starting_points=[{"margin": 1.0}]
    )
    with pytest.raises(UserError, match="'listed' tries only the points in its space"):
        with_warm_start(listed, data, console)
