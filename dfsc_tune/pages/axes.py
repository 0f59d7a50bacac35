"""How a searched setting is laid out on an axis: its scale, and ticks that people can read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfsc_tune.results import Run, shown_value
from dfsc_tune.spaces.parameters import AnyParameter, CategoricalParameter, FreeParameter

_STEPS = (1.0, 2.0, 5.0)
_MAX_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """One searched setting as the search space declares it."""

    name: str
    scale: str
    """linear, log, log_complement (even in log(1 - x)) or categorical."""
    choices: tuple[str, ...] = ()
    """Of a categorical setting, as text."""

    @property
    def title(self) -> str:
        """The setting's name and how its axis runs."""
        note = {"log": " (log scale)", "log_complement": " (even in log(1 − x))"}
        return self.name + note.get(self.scale, "")

    def positions(self, values: pd.Series) -> NDArray[np.float64]:
        """Where values lie on the axis; not finite where they have no place on it."""
        if self.scale == "categorical":
            places = {choice: float(place) for place, choice in enumerate(self.choices)}
            return np.array([places.get(shown_value(x), math.nan) for x in values])
        numbers: NDArray[np.float64] = values.to_numpy(dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.scale == "log":
                numbers = np.log10(numbers)
            elif self.scale == "log_complement":
                numbers = -np.log10(1 - numbers)
        return numbers

    def ticks(self, positions: NDArray[np.float64]) -> tuple[list[float], list[str]] | None:
        """Places and texts of the ticks over the given positions; None leaves them to the plot."""
        if self.scale == "categorical":
            return [float(x) for x in range(len(self.choices))], list(self.choices)
        finite = positions[np.isfinite(positions)]
        if self.scale == "linear" or not finite.size:
            return None
        sign = -1 if self.scale == "log_complement" else 1
        low, high = sorted((sign * float(finite.min()), sign * float(finite.max())))
        powers = _round_powers(low, high)
        shown = [1 - x for x in powers] if sign < 0 else powers
        return [sign * math.log10(x) for x in powers], [f"{x:.10g}" for x in shown]


def searched_axes(run: Run, category: str, trials: pd.DataFrame) -> list[Axis]:
    """The axes of a category's searched settings, margin first; none where nothing varies.

    Args:
        run: whose settings say what was searched.
        category: one of its categories.
        trials: the category's trials.
    """
    if run.settings.space is None:
        return []
    parameters = run.settings.space.for_category(category).parameters
    axes = [_axis(name, parameter, trials[name]) for name, parameter in parameters.items()]
    return sorted(axes, key=lambda axis: axis.name != "margin")


def _axis(name: str, parameter: AnyParameter, values: pd.Series) -> Axis:
    if not isinstance(parameter, CategoricalParameter):
        return Axis(name, "linear" if isinstance(parameter, FreeParameter) else parameter.scale)
    # The paper's value is tried even where it is none of the choices.
    choices: Sequence[Any] = [*parameter.choices, *values]
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in choices):
        choices = sorted(float(x) for x in choices)
    return Axis(name, "categorical", tuple(dict.fromkeys(shown_value(x) for x in choices)))


def _round_powers(low: float, high: float) -> list[float]:
    """Round numbers whose logarithms lie between two bounds, few enough to be told apart.

    Where the bounds hold fewer than two of them: the bounds themselves, to two digits.
    """
    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in (_STEPS, (1.0,)):
        found = [step * 10.0**power for power in decades for step in steps]
        found = [x for x in found if low - 1e-9 <= math.log10(x) <= high + 1e-9]
        if len(found) <= _MAX_TICKS:
            break
    bounds = dict.fromkeys(float(f"{10.0**x:.2g}") for x in (low, high))
    return found if len(found) > 1 else list(bounds)
