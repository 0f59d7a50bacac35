"""Expected steps: the rules are Ray's, small cases by hand, more trials never take fewer steps."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfsc_tune.cost.expected import TrialTimes, Values, expect, simulate
from dfsc_tune.spaces.asha import judged_steps
from dfsc_tune.spaces.space import Budget, load_space
from tests.support.ray_asha import RayAsha, budget

# A second a step, nothing else: times are whole numbers, so who reports first is exact.
ONE = TrialTimes(1.0, 0.0, 0.0)


def played_by_ray(spent: Budget, values: list[Values], at_once: int) -> list[list[int]]:
    """Each trial's steps where Ray's scheduler decides: every report reaches it, as from Tune."""
    stages = {step: index for index, step in enumerate(judged_steps(spent))}
    asha = RayAsha(spent)
    steps = [[0] * len(of_category) for of_category in values]
    order = [(c, t) for t in range(max(map(len, values))) for c in range(len(values))]
    waiting = [(c, t) for c, t in order if t < len(values[c])]
    running: list[tuple[int, int, int]] = []
    started = itertools.count()

    def start(now: int) -> None:
        if (index := next(started)) < len(waiting):
            heapq.heappush(running, (now + spent.report_interval, index, 0))

    for _ in range(at_once):
        start(0)
    while running:
        now, index, before = heapq.heappop(running)
        category, number = waiting[index]
        step = min(before + spent.report_interval, spent.num_steps)
        # Between judgements a value decides nothing: Ray must not look at it.
        value = values[category][number, stages[step]] if step in stages else -1e9
        if asha.goes_on(str(category), str(index), step, float(value), is_reference=number == 0):
            left = min(spent.report_interval, spent.num_steps - step)
            heapq.heappush(running, (now + left, index, step))
        else:
            steps[category][number] = step
            start(now)
    return steps


def drawn(spent: Budget, num_trials: tuple[int, ...], seed: int, levels: int = 0) -> list[Values]:
    """Random values; of few `levels`, so that many tie."""
    rng = np.random.default_rng(seed)
    shapes = [(count, len(judged_steps(spent))) for count in num_trials]
    if levels:
        return [rng.integers(0, levels, shape).astype(np.float64) for shape in shapes]
    return [rng.standard_normal(shape) for shape in shapes]


def test_one_rung_by_hand() -> None:
    # One at a time, the best half goes on: 5 is the paper's; 4 < 5 stops; 4.5 meets the median of
    # 5 and 4; 4.2 < 4.5 stops; 9 goes on. The paper's trial would go on with any value.
    spent = budget(12, 10, 10, 2)
    values = np.array([[5, 0], [4, 0], [4.5, 0], [4.2, 0], [9, 0]])
    steps, trial_seconds, wall_seconds = simulate(spent, [values], 1, [ONE])
    assert steps == [[12, 10, 12, 10, 12]] == played_by_ray(spent, [values], 1)
    assert trial_seconds == wall_seconds == 56


def test_without_a_rung_every_trial_takes_all_steps() -> None:
    times = TrialTimes(seconds_per_step=0.5, seconds_per_report=3.0, seconds_to_start=2.0)
    found = expect(budget(70, 20, 70), [3, 2], 2, [times, times])
    assert found.steps == 5 * 70
    # Four reports a trial; two at once take three rounds.
    of_a_trial = 2 + 70 * 0.5 + 4 * 3
    assert found.trial_seconds == pytest.approx(5 * of_a_trial)
    assert found.wall_seconds == pytest.approx(3 * of_a_trial)


@pytest.mark.parametrize("levels", [0, 4])
@pytest.mark.parametrize(
    "spent",
    [
        *(budget(70, 5, 5), budget(99, 20, 33), budget(100, 20, 21, 2), budget(81, 1, 1, 3)),
        *(load_space(name).budget for name in ("cpu", "default", "smoke")),
    ],
)
def test_every_stop_is_rays(spent: Budget, levels: int) -> None:
    for seed, at_once in enumerate((1, 3, 8)):
        values = drawn(spent, (20, 7), seed, levels)
        found, *_ = simulate(spent, values, at_once, [ONE, ONE])
        assert found == played_by_ray(spent, values, at_once)
        assert len({step for steps in found for step in steps}) > 1


@settings(max_examples=30, deadline=None)
@given(
    num_trials=st.integers(1, 30),
    more=st.integers(1, 10),
    factor=st.integers(2, 4),
    at_once=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_more_trials_never_take_fewer_steps(
    num_trials: int, more: int, factor: int, at_once: int, seed: int
) -> None:
    spent = budget(60, 5, 5, factor)
    # One at a time, later trials change nothing of earlier ones.
    values = drawn(spent, (num_trials + more,), seed)
    few, *_ = simulate(spent, [values[0][:num_trials]], 1, [ONE])
    many, *_ = simulate(spent, values, 1, [ONE])
    assert many[0][:num_trials] == few[0]
    # Many at once, each trial adds at least its grace period; none more than everything.
    found, trial_seconds, wall_seconds = simulate(spent, values, at_once, [ONE])
    assert 60 + 5 * (num_trials + more - 1) <= sum(found[0]) <= 60 * (num_trials + more)
    assert wall_seconds * at_once >= trial_seconds == sum(found[0])


def test_expected_steps_grow_with_trials_and_shrink_with_the_factor() -> None:
    means = [expect(budget(70, 5, 5), [n], 4, [ONE]).steps for n in (1, 2, 5, 10, 40)]
    assert means == sorted(means)
    assert means[0] == 70
    greedy, patient = (expect(budget(70, 5, 5, f), [40], 4, [ONE]).steps for f in (4, 2))
    assert greedy < patient < 40 * 70


def test_the_same_search_is_expected_to_take_the_same() -> None:
    first, second = (expect(budget(70, 5, 5), [10], 2, [ONE]) for _ in range(2))
    assert first == second


def test_of_two_trials_the_second_passes_half_of_the_time() -> None:
    found = expect(budget(2, 1, 1, 2), [2], 1, [ONE])
    assert found.steps == pytest.approx(2 + 1.5, abs=0.1)
