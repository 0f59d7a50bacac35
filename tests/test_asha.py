"""ASHA: decides as Ray's scheduler does, and the rules of a search by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dfsc_tune.spaces.asha import Asha, judged_steps
from dfsc_tune.spaces.space import Budget
from tests.support.ray_asha import RayAsha, budget


def random_budget(rng: np.random.Generator) -> Budget:
    if rng.random() < 0.3:
        # The full budget is a rung, if logarithms are rounded so.
        factor = int(rng.integers(2, 5))
        return budget(factor ** int(rng.integers(1, 6)), 1, 1, factor)
    num_steps = int(rng.integers(1, 200))
    grace = int(rng.integers(1, num_steps + 1))
    return budget(num_steps, int(rng.integers(1, grace + 1)), grace, int(rng.integers(2, 6)))


def random_value(rng: np.random.Generator, levels: int, nan_share: float) -> float:
    if rng.random() < nan_share:
        return float(rng.choice([math.nan, math.inf, -math.inf]))
    # AUROCs of few images: many tie, also with the cutoff.
    return float(rng.integers(0, levels + 1) / levels) if levels else float(rng.random())


def test_every_decision_is_the_one_of_rays_scheduler() -> None:
    rng = np.random.default_rng(0)
    num_stops = num_decisions = 0
    for _ in range(500):
        spent = random_budget(rng)
        ours, rays = Asha(spent), RayAsha(spent)
        levels, nan_share = int(rng.choice([0, 3, 97])), float(rng.choice([0, 0.2]))
        running = {f"{x:04d}": 0 for x in range(int(rng.integers(2, 25)))}
        while running:
            # Trials of two categories report in any order.
            trial = list(running)[rng.integers(len(running))]
            step = running[trial] = min(running[trial] + spent.report_interval, spent.num_steps)
            report = (str(int(trial) % 2), trial, step, random_value(rng, levels, nan_share))
            goes_on = ours.goes_on(*report, is_reference=trial < "0002")
            assert goes_on == rays.goes_on(*report, is_reference=trial < "0002"), (spent, report)
            num_decisions += 1
            num_stops += not goes_on and step < spent.num_steps
            if not goes_on:
                del running[trial]
    assert num_decisions > 20_000
    assert num_stops > 1000


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        (budget(70, 5, 5), [5, 15, 45, 70]),
        # A rung is judged at the first report after it; one at the full budget judges nobody.
        (budget(99, 20, 33), [40, 99]),
        (budget(100, 20, 21, 2), [40, 60, 100]),
        (budget(70, 7, 70), [70]),
    ],
)
def test_trials_are_judged_at_the_first_report_of_each_rung(
    spent: Budget, expected: list[int]
) -> None:
    assert judged_steps(spent) == expected


@pytest.fixture
def asha() -> Asha:
    return Asha(budget(90, 10, 10))


def test_trials_are_compared_within_their_category_only(asha: Asha) -> None:
    assert asha.goes_on("easy", "e0", 10, 0.99)
    assert asha.goes_on("hard", "h0", 10, 0.60)
    assert not asha.goes_on("easy", "e1", 10, 0.95)
    assert not asha.goes_on("hard", "h1", 10, 0.55)
    assert asha.goes_on("hard", "h2", 10, 0.61)


def test_rungs_are_measured_in_steps(asha: Asha) -> None:
    assert asha.goes_on("x", "a", 10, 0.8)
    assert asha.goes_on("x", "a", 30, 0.9)
    assert asha.goes_on("x", "b", 10, 0.85)
    assert asha.goes_on("x", "b", 20, 0.1)
    assert not asha.goes_on("x", "b", 30, 0.7)
    assert not asha.goes_on("x", "a", 90, 0.9)


def test_a_reference_trial_goes_on_to_the_full_budget_and_counts(asha: Asha) -> None:
    assert asha.goes_on("x", "other", 10, 0.5)
    assert asha.goes_on("x", "paper", 10, 0.2, is_reference=True)
    # The best third of 0.2 and 0.5 begins at 0.4.
    assert not asha.goes_on("x", "third", 10, 0.39)
    assert not asha.goes_on("x", "paper", 90, 0.2, is_reference=True)


def test_values_that_are_no_numbers_stay_out_of_the_rungs(asha: Asha) -> None:
    assert asha.goes_on("x", "broken", 10, math.nan)
    assert asha.goes_on("x", "good", 10, 0.1)
    assert not asha.goes_on("x", "broken", 90, math.nan)
