"""A category's Optuna study: order, states, seeds, the journal."""

from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dfsc_tune.errors import UserError
from dfsc_tune.settings import loads
from dfsc_tune.spaces.sampler import SamplerName
from dfsc_tune.spaces.space import SearchSpace
from tests.support.made_up_study import (
    BUDGET,
    CONDITIONAL,
    GRID,
    SPACE,
    play,
    recorded,
    study,
    tell,
)

DRAWING = sorted(set(get_args(SamplerName)) - {"grid", "listed"})
"""The samplers that draw points, rather than take those that are given."""


def test_first_points_come_exactly_as_given() -> None:
    of_category = study()
    suggestions = [of_category.suggest() for _ in range(3)]
    paper = {"margin": 1.0, "quantile": 0.999, "alpha": 2.0}
    assert [x.values for x in suggestions[:2]] == [paper, {**paper, "margin": 0.0}]
    assert [x.role for x in suggestions] == ["paper", "margin_0", "sampler"]


def test_no_more_than_num_trials_are_suggested() -> None:
    assert len(play(study(num_trials=5))) == 5


@pytest.mark.parametrize("sampler", DRAWING)
def test_one_seed_gives_the_same_trials_twice(sampler: str) -> None:
    text = SPACE + f"sampler: {sampler}\n"
    first, second = (play(study(text, 12, seed=3)) for _ in range(2))
    assert first == second
    other = play(study(text, 12, seed=4))
    # After the first points, no trial is that of another seed.
    assert all(ours != theirs for ours, theirs in zip(first[2:], other[2:], strict=True))


@pytest.mark.parametrize("sampler", [*DRAWING, "grid"])
def test_a_study_made_again_goes_on_as_it_would_have(sampler: str) -> None:
    space = GRID if sampler == "grid" else SPACE
    text = f"{space}\nsampler: {sampler}\n"
    whole = play(study(text, seed=3))
    again = study(text, seed=3)
    for suggestion in recorded(study(text, seed=3), 6):
        made = again.suggest_again(suggestion.values, suggestion.role, suggestion.params)
        assert made.number == suggestion.number
        tell(again, made)
    assert again.num_left == len(whole) - 6
    assert play(again) == whole[6:]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_parameters_that_do_not_exist_are_not_suggested(sampler: str) -> None:
    points = play(study(f"{CONDITIONAL}sampler: {sampler}\n", 20))
    assert {point["optimizer"] for point in points} == {"adam", "adamw"}
    for point in points:
        assert ("weight_decay" in point) == (point["optimizer"] == "adamw")


def test_all_suggestions_lie_inside_the_space() -> None:
    space = loads(SPACE, SearchSpace, "x")
    for point in play(study(num_trials=25)):
        assert all(space.parameters[name].contains(x) for name, x in point.items())


def test_the_scale_of_the_complement_is_logarithmic() -> None:
    points = play(study(SPACE + "sampler: random\n", 300))[2:]
    near_one = sum(float(point["quantile"]) > 0.99 for point in points)
    # Of the three decades of 1 − x from 1e-4 to 1e-1, two lie above 0.99.
    assert 0.58 < near_one / len(points) < 0.75


def test_grid_tries_each_combination_once_and_ends() -> None:
    text = (
        "parameters:\n  margin: {type: categorical, choices: [0.0, 0.4, 1.0]}\n"
        "  alpha: {type: categorical, choices: [1.0, 2.0]}\nsampler: grid\n" + BUDGET
    )
    of_category = study(text)
    assert of_category.num_expected == 6
    points = play(of_category)
    assert len({(point["margin"], point["alpha"]) for point in points}) == len(points) == 6


def test_the_paper_is_tried_even_outside_the_space_but_not_told() -> None:
    text = "parameters: {margin: {type: float, low: 0.2, high: 0.6}}\n" + BUDGET
    of_category = study(text, num_trials=4)
    first, second, third, _ = (of_category.suggest() for _ in range(4))
    assert (first.values, first.number) == ({"margin": 1.0}, None)
    assert (second.values, second.number) == ({"margin": 0.0}, None)
    assert third.number == 0
    assert of_category.suggest() is None


def test_states_and_intermediate_values_reach_optuna(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    of_category = study(journal=journal)
    numbers = [of_category.suggest().number for _ in range(3)]
    for step, value in ((10, 0.5), (20, 0.6)):
        of_category.report(numbers[0], step, value)
    of_category.finish(numbers[0], "complete", 0.6)
    of_category.report(numbers[1], 10, 0.9)
    of_category.finish(numbers[1], "pruned")
    of_category.report(numbers[2], 10, float("nan"))
    of_category.finish(numbers[2], "failed")
    storage = JournalStorage(JournalFileBackend(str(journal)))
    reopened = optuna.load_study(study_name="run/tray", storage=storage)
    complete, pruned, failed = reopened.get_trials()
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 0.6)
    assert complete.intermediate_values == {10: 0.5, 20: 0.6}
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {10: 0.9})
    assert (failed.state, failed.intermediate_values) == (TrialState.FAIL, {})
    # The best is a complete one, however good an early-stopped one looked.
    assert reopened.best_trial.number == complete.number


def test_a_lock_that_a_killed_process_left_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "study.journal"
    (tmp_path / "study.journal.lock").symlink_to(journal)
    # As Optuna's own lock does, for half a minute or, where the path is relative, for ever.
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it waits"))
    assert study(journal=journal).suggest() is not None


def test_a_journal_is_not_reopened_with_another_space(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    study(journal=journal)
    with pytest.raises(UserError, match="holds a study 'run/tray' already"):
        study(SPACE.replace("high: 2.0", "high: 1.5"), journal=journal)


def test_tpe_homes_in_better_than_chance() -> None:
    late = [
        abs(float(point["margin"]) - 0.7)
        for seed in range(3)
        for point in play(study(num_trials=40, seed=seed))[20:]
    ]
    # Half of what chance would give.
    assert sorted(late)[len(late) // 2] < 0.25
