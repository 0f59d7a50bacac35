"""Studies that take turns, and ASHA by category, driven by hand without Ray running."""

import math
from types import SimpleNamespace

import pytest

from dfsc_tune.config import TrialConfig
from dfsc_tune.search.scheduler import CategoryAsha
from dfsc_tune.search.searcher import StudySearcher, end_state
from dfsc_tune.search.study import CategoryStudy
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import Budget, SearchSpace

SPACE = """\
parameters: {margin: {type: float, low: 0.0, high: 2.0}}
budget: {num_trials: 3, num_steps: 100, report_interval: 10, grace_period: 10}
"""


class RecordingStudy(CategoryStudy):
    """Remembers what it is told."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)
        self.reports: list[tuple[int, int, float]] = []
        self.ends: list[tuple[int, str, float | None]] = []

    def report(self, number: int, step: int, value: float) -> None:
        self.reports.append((number, step, value))
        super().report(number, step, value)

    def finish(self, number: int, state: str, value: float | None = None) -> None:
        self.ends.append((number, state, value))
        super().finish(number, state, value)


@pytest.fixture
def searcher() -> tuple[StudySearcher, dict[str, RecordingStudy]]:
    space = loads(SPACE, SearchSpace, "x")
    bases = {
        name: space.for_category(name).base_config(name, train={"num_steps": 100})
        for name in ("tray", "bag")
    }
    studies = {
        name: RecordingStudy(space.for_category(name), name=name, num_trials=3) for name in bases
    }
    return StudySearcher(studies, bases), studies


def test_categories_take_turns_until_all_are_done(
    searcher: tuple[StudySearcher, dict[str, RecordingStudy]],
) -> None:
    suggestions = [searcher[0].suggest(str(index)) for index in range(7)]
    assert [x["category"] for x in suggestions[:6]] == ["tray", "bag"] * 3
    assert suggestions[6] is None
    config = TrialConfig.model_validate(suggestions[2]["trial_config"])
    assert (config.category, config.loss.margin, suggestions[2]["role"]) == ("tray", 0, "margin_0")


def test_every_report_reaches_the_study_once_the_last_included(
    searcher: tuple[StudySearcher, dict[str, RecordingStudy]],
) -> None:
    ours, studies = searcher
    ours.suggest("a")
    ours.on_trial_result("a", {"step": 10, "value": 0.5})
    ours.on_trial_complete("a", {"step": 20, "value": 0.6})
    assert studies["tray"].reports == [(0, 10, 0.5), (0, 20, 0.6)]
    assert studies["tray"].ends == [(0, "pruned", None)]


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"step": 100, "value": 0.7}, "complete"),
        ({"step": 90, "value": 0.9}, "pruned"),
        ({"step": 100, "value": math.nan}, "failed"),
    ],
)
def test_only_full_budget_trials_are_complete(
    searcher: tuple[StudySearcher, dict[str, RecordingStudy]],
    result: dict[str, float],
    state: str,
) -> None:
    ours, studies = searcher
    ours.suggest("a")
    ours.on_trial_complete("a", result)
    assert studies["tray"].ends == [(0, state, 0.7 if state == "complete" else None)]
    assert end_state(result, 100) == state


def trial(name: str, category: str, role: str = "sampler") -> SimpleNamespace:
    return SimpleNamespace(trial_id=name, config={"category": category, "role": role})


def decide(asha: CategoryAsha, one: SimpleNamespace, step: int, value: float) -> str:
    return asha.on_trial_result(None, one, {"step": step, "value": value})


@pytest.fixture
def asha() -> CategoryAsha:
    budget = Budget(
        num_trials=9, num_steps=90, report_interval=10, grace_period=10, reduction_factor=3
    )
    return CategoryAsha(budget)


def test_trials_are_compared_within_their_category_only(asha: CategoryAsha) -> None:
    easy = [trial(f"e{index}", "easy") for index in range(3)]
    hard = [trial(f"h{index}", "hard") for index in range(3)]
    for one in easy + hard:
        asha.on_trial_add(None, one)
    assert decide(asha, easy[0], 10, 0.99) == "CONTINUE"
    assert decide(asha, hard[0], 10, 0.60) == "CONTINUE"
    assert decide(asha, easy[1], 10, 0.95) == "STOP"
    assert decide(asha, hard[1], 10, 0.55) == "STOP"
    assert decide(asha, hard[2], 10, 0.61) == "CONTINUE"


def test_rungs_are_measured_in_steps(asha: CategoryAsha) -> None:
    first, second = trial("a", "x"), trial("b", "x")
    for one in (first, second):
        asha.on_trial_add(None, one)
    assert decide(asha, first, 10, 0.8) == "CONTINUE"
    assert decide(asha, first, 30, 0.9) == "CONTINUE"
    assert decide(asha, second, 10, 0.85) == "CONTINUE"
    assert decide(asha, second, 20, 0.1) == "CONTINUE"
    assert decide(asha, second, 30, 0.7) == "STOP"
    assert decide(asha, first, 90, 0.9) == "STOP"


@pytest.mark.parametrize("role", ["paper", "margin_0"])
def test_what_the_best_is_compared_with_is_never_stopped_early(
    asha: CategoryAsha, role: str
) -> None:
    paper, other = trial("p", "x", role), trial("o", "x")
    for one in (other, paper):
        asha.on_trial_add(None, one)
    assert decide(asha, other, 10, 0.9) == "CONTINUE"
    assert decide(asha, paper, 10, 0.2) == "CONTINUE"
    assert decide(asha, paper, 90, 0.2) == "STOP"


def test_values_that_are_no_numbers_stay_out_of_the_rungs(asha: CategoryAsha) -> None:
    broken, good = trial("b", "x"), trial("g", "x")
    for one in (broken, good):
        asha.on_trial_add(None, one)
    assert decide(asha, broken, 10, math.nan) == "CONTINUE"
    asha.on_trial_complete(None, broken, {"step": 10, "value": math.nan})
    assert decide(asha, good, 10, 0.1) == "CONTINUE"
