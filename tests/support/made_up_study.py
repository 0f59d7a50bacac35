"""A category's Optuna study that is played to its end on a made-up objective."""

from __future__ import annotations

from dfsc_tune.search.study import CategoryStudy, Suggestion
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import SearchSpace

BUDGET = "budget: {num_trials: 8, num_steps: 100, report_interval: 10, grace_period: 20}\n"
SPACE = f"""\
parameters:
  margin: {{type: float, low: 0.0, high: 2.0}}
  quantile: {{type: float, low: 0.9, high: 0.9999, scale: log_complement}}
  alpha: {{type: float, low: 0.25, high: 8.0, scale: log}}
{BUDGET}"""


GRID = f"""\
parameters:
  margin: {{type: categorical, choices: [0.0, 0.2, 0.4, 1.0, 2.0]}}
  alpha: {{type: categorical, choices: [1.0, 2.0]}}
{BUDGET}"""
CONDITIONAL = f"""\
parameters:
  margin: {{type: float, low: 0.0, high: 2.0}}
  optimizer: {{type: categorical, choices: [adamw, adam]}}
  weight_decay: {{type: float, low: 1e-6, high: 1e-3, scale: log, when: {{optimizer: adamw}}}}
{BUDGET}"""


def study(text: str = SPACE, num_trials: int = 8, **settings: object) -> CategoryStudy:
    space = loads(text, SearchSpace, "space.yaml")
    of_category = space.for_category("tray")
    return CategoryStudy(
        of_category,
        name="run/tray",
        num_trials=num_trials,
        **settings,
    )


def play(of_category: CategoryStudy) -> list[dict[str, object]]:
    """Runs a study to its end on a made-up objective, one trial at a time."""
    return [suggestion.values for suggestion in recorded(of_category, 10**6)]


def recorded(of_category: CategoryStudy, most: int) -> list[Suggestion]:
    """Plays a study for some suggestions, or to its end."""
    suggestions = []
    while len(suggestions) < most and (suggestion := of_category.suggest()) is not None:
        suggestions.append(suggestion)
        tell(of_category, suggestion)
    return suggestions


def tell(of_category: CategoryStudy, suggestion: Suggestion) -> None:
    """Tells a study what a trial came to on a made-up objective."""
    if suggestion.number is not None:
        value = -abs(float(suggestion.values["margin"]) - 0.7)
        of_category.report(suggestion.number, 100, value)
        of_category.finish(suggestion.number, "complete", value)
