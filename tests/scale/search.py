"""A large search whose trials follow recorded learning curves instead of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args
from unittest import mock

import numpy as np

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.progress import Progress
from dfsc_tune.results import load
from dfsc_tune.search import controller
from dfsc_tune.search.controller import Controller
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.messages import Report
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.run import replayed_controller
from dfsc_tune.settings import validate
from dfsc_tune.spaces.space import Role, SearchSpace, load_space
from tests.studies.blackbox import Blackbox, recorded_curves

CATEGORY = "juice_bottle"
NUM_REPORTS = 20
_CURVES = Path(__file__).parents[2] / "results" / "reference" / "search_curves"

Trials = Callable[[TrialConfig], list[Report]]
"""From a trial's config to what it reports, in its order."""


def large_search(results: Path, num_trials: int, sampler: str) -> SearchRequest:
    """The default space, with that many trials of `NUM_REPORTS` reports each."""
    tree = load_space("default").model_dump()
    interval = tree["budget"]["num_steps"] // NUM_REPORTS
    tree["budget"] |= {"num_trials": num_trials, "report_interval": interval}
    tree["budget"] |= {"grace_period": 2 * interval}
    tree["sampler"] = sampler
    space = validate(SearchSpace, tree, source="default")
    return SearchRequest((CATEGORY,), results, None, space, results, f"{num_trials}_trials")


def open_controller(request: SearchRequest, ledger: Ledger) -> Controller:
    """The controller of that search, as far as its ledger goes."""
    budget = request.space.budget
    train = {"num_steps": budget.num_steps, "report_interval": budget.report_interval}
    base = request.space.for_category(CATEGORY).base_config(CATEGORY, train=train)
    return replayed_controller(request, {CATEGORY: base}, ledger.path.parent, ledger)


@contextmanager
def never_stopping() -> Iterator[None]:
    """Within the block ASHA decides, but its word does not count: each trial reports to its end."""
    with mock.patch.object(controller, "REFERENCES", get_args(Role)):
        yield


def recorded_trials() -> Trials:
    """Trials that report what was recorded of real ones, at the same shares of the budget."""
    blackbox = Blackbox(recorded_curves(load(_CURVES), CATEGORY))
    recorded = blackbox.curves.steps / blackbox.curves.steps[-1]
    shares = np.arange(1, NUM_REPORTS + 1) / NUM_REPORTS

    def reports(trial: TrialConfig) -> list[Report]:
        curves = blackbox.curve(searchable_values(trial), trial.train.ema_momenta, seed=0)
        values = {x: np.interp(shares, recorded, curve).tolist() for x, curve in curves.items()}
        return [
            report(trial, number, {x: curve[number - 1] for x, curve in values.items()})
            for number in range(1, NUM_REPORTS + 1)
        ]

    return reports


def report(trial: TrialConfig, number: int, values: dict[float, float]) -> Report:
    """What a trial reports for the so manieth time, its value for each EMA momentum given."""
    best = max(values, key=lambda x: values[x])
    momenta = [best, *values] if trial.train.choose_ema_momentum else [*values]
    names = ("auroc_logical", "auroc_structural", "auroc_mean")
    progress = Progress(
        step=number * trial.train.report_interval,
        value=values[momenta[0]],
        metrics={x: dict.fromkeys(names, values[x]) for x in momenta},
        losses={"total": 1.0},
        seconds=60.0 * number,
    )
    return Report(progress, "node", "cpu")
