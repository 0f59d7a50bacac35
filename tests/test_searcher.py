"""Studies that take turns, driven by hand."""

import math

import pytest

from dfsc_tune.search.searcher import StudySearcher
from dfsc_tune.search.study import CategoryStudy
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import SearchSpace

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
    *six, seventh = suggestions
    assert [x.config.category for x in six] == ["tray", "bag"] * 3
    assert seventh is None
    assert six[2].config.loss.margin == 0
    assert six[2].suggestion.role == "margin_0"


def test_every_report_reaches_the_study_once_the_last_included(
    searcher: tuple[StudySearcher, dict[str, RecordingStudy]],
) -> None:
    ours, studies = searcher
    ours.suggest("a")
    ours.report("a", 10, 0.5)
    assert ours.finish("a", 20, 0.6) == "pruned"
    assert studies["tray"].reports == [(0, 10, 0.5), (0, 20, 0.6)]
    assert studies["tray"].ends == [(0, "pruned", None)]


@pytest.mark.parametrize(
    ("step", "value", "state"),
    [(100, 0.7, "complete"), (90, 0.9, "pruned"), (100, math.nan, "failed")],
)
def test_only_full_budget_trials_are_complete(
    searcher: tuple[StudySearcher, dict[str, RecordingStudy]],
    step: int,
    value: float,
    state: str,
) -> None:
    ours, studies = searcher
    ours.suggest("a")
    assert ours.finish("a", step, value) == state
    assert studies["tray"].ends == [(0, state, 0.7 if state == "complete" else None)]
