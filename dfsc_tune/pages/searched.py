"""The searched settings of a run, and the axis of each."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dfsc_tune.results import Run, shown_value
from dfsc_tune.spaces.parameters import AnyParameter, CategoricalParameter, FreeParameter

_NUM_TICKS = 5


@dataclass(frozen=True)
class Setting:
    """One searched setting as the search space declares it."""

    name: str
    scale: str
    """linear, log, log_complement (even in log(1 - x)) or categorical."""
    choices: tuple[str, ...] = ()
    """Labels of a categorical setting's choices, unless all are numbers."""

    @property
    def title(self) -> str:
        """The title of its axis."""
        if self.scale == "log_complement":
            return f"1 − {self.name} (log scale)"
        return self.name + (" (log scale)" if self.scale == "log" else "")

    @property
    def axis(self) -> dict[str, Any]:
        """Its horizontal axis for Plotly; larger values are further right."""
        if self.choices:
            return {"type": "category", "categoryorder": "array", "categoryarray": self.choices}
        if not self.scale.startswith("log"):
            return {"type": "linear"}
        direction = "reversed" if self.scale == "log_complement" else True
        return {"type": "log", "autorange": direction, "exponentformat": "power"}

    def places(self, trials: pd.DataFrame) -> pd.Series:
        """Returns the trials' places on this axis; missing if a log scale cannot show them."""
        values = trials[self.name]
        if self.choices:
            return values.map(_text)
        if self.scale == "log_complement":
            values = 1 - values
        return values.where(values > 0) if self.scale.startswith("log") else values

    def positions(self, trials: pd.DataFrame) -> pd.Series:
        """Returns the same places as numbers along a linear axis."""
        places = self.places(trials)
        if self.choices:
            return places.map({choice: float(i) for i, choice in enumerate(self.choices)})
        return np.log10(places) if self.scale.startswith("log") else places

    def dimension(self, trials: pd.DataFrame) -> dict[str, Any]:
        """Returns its axis for parallel coordinates: positions, and ticks with its own values."""
        positions = self.positions(trials)
        if self.choices:
            places: Sequence[float] = range(len(self.choices))
            texts = list(self.choices)
        else:
            places = np.linspace(positions.min(), positions.max(), _NUM_TICKS).tolist()
            texts = [shown_value(self._value(place)) for place in places]
        return {"values": positions, "tickvals": list(places), "ticktext": texts}

    def _value(self, position: float) -> float:
        if self.scale == "log_complement":
            return 1 - float(10.0**position)
        return float(10.0**position) if self.scale == "log" else position


def searched_settings(run: Run, category: str, trials: pd.DataFrame) -> list[Setting]:
    """Lists the settings that a category's search varied, margin first; none for one training.

    Args:
        run: the run.
        category: one of its categories.
        trials: the category's trials.
    """
    if run.settings.space is None:
        return []
    parameters = run.settings.space.for_category(category).parameters
    found = [_setting(name, parameter, trials[name]) for name, parameter in parameters.items()]
    return sorted(found, key=lambda setting: setting.name != "margin")


def _setting(name: str, parameter: AnyParameter, values: pd.Series) -> Setting:
    if not isinstance(parameter, CategoricalParameter):
        return Setting(name, "linear" if isinstance(parameter, FreeParameter) else parameter.scale)
    # The paper's value is tried even if it is not among the choices.
    choices: Sequence[Any] = [*parameter.choices, *values]
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in choices):
        return Setting(name, "linear")
    return Setting(name, "categorical", tuple(dict.fromkeys(map(_text, choices))))


def _text(choice: object) -> str:
    """Formats a choice for Plotly's labels, which interpret some HTML."""
    return html.escape(shown_value(choice))
