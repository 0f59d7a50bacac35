"""Learning curves of real trials as a function of their settings: trials that take no time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from dfsc_tune.errors import UserError
from dfsc_tune.results import Run, best_trials, complete_trials, space_of_run
from dfsc_tune.spaces.parameters import FloatParameter, Value

Array = npt.NDArray[np.float64]

_FEWEST_TRIALS = 12
_OPTIMUM_POINTS = 4096


@dataclass(frozen=True)
class RecordedCurves:
    """What the complete trials of one category reported."""

    parameters: Mapping[str, FloatParameter]
    """The settings that varied, the EMA momentum not among them: each trial scored several."""
    points: Array
    """(trials, parameters): where each trial lay, from 0 to 1 along each parameter's scale."""
    momenta: Array
    """(momenta,), ascending."""
    steps: npt.NDArray[np.int64]
    """(steps,), ascending; the last is the full budget."""
    values: Array
    """(trials, momenta, steps): the objective's value."""
    elsewhere: Sequence[Mapping[str, Value]] = ()
    """The best settings of each other category of the run."""


def recorded_curves(run: Run, category: str) -> RecordedCurves:
    """The curves of a run recorded without early stopping (`--space record`).

    Raises:
        UserError: the run does not fit: other kinds of settings, too few complete trials, or
            trials that scored different momenta.
    """
    space = space_of_run(run.settings, run.folder)
    searched = space.for_category(category).suggested
    parameters = {x: y for x, y in searched.items() if isinstance(y, FloatParameter)}
    if not parameters or len(parameters) < len(searched):
        raise UserError(
            f"the run {run.folder} cannot serve as a blackbox: only settings of type float "
            "can be interpolated; record one with --space record"
        )
    of_category = run.trials[run.trials["category"] == category]
    trials = complete_trials(of_category).sort_values("trial")
    if len(trials) < _FEWEST_TRIALS:
        raise UserError(
            f"{len(trials)} trials of {category} in {run.folder} reached the full budget; "
            f"a blackbox needs {_FEWEST_TRIALS}"
        )
    table = run.reports[run.reports["trial"].isin(trials["trial"])].pivot_table(
        index="trial",
        columns=["ema_momentum", "step"],
        values=f"auroc_{run.settings.objective.metric}",
    )
    if table.isna().any(axis=None) or "ema_momentum" in parameters:
        raise UserError(
            f"the trials of {run.folder} scored different EMA momenta, so their curves cannot be "
            "laid side by side; record one with --space record"
        )
    momenta, steps = (np.array(sorted(set(level))) for level in zip(*table.columns, strict=True))
    return RecordedCurves(
        parameters=parameters,
        points=np.column_stack([to_unit(x, trials[name]) for name, x in parameters.items()]),
        momenta=momenta,
        steps=steps,
        values=table.to_numpy().reshape(len(trials), len(momenta), len(steps)),
        elsewhere=[
            {name: row[name] for name in parameters}
            for row in best_trials(run.trials).to_dict("records")
            if row["category"] != category
        ],
    )


class Blackbox:
    """Curves at any settings: a model's mean plus a deviation from it like the recorded trials'.

    The mean is that of `_Model`; between two recorded momenta, values are interpolated linearly in
    log(1 − momentum). The deviations are normal, with the covariance over momenta and steps of
    those of the leave-one-out predictions, so that a trial lucky at one step or momentum is lucky
    at the others as in truth; they hold the model's own error too, so the luck is rather too large
    than too small.
    """

    def __init__(self, curves: RecordedCurves) -> None:
        self.curves = curves
        self._model = _Model(curves.points, curves.values)
        self._deviations = curves.values - leave_one_out(curves)
        grid = np.random.default_rng(0).random((_OPTIMUM_POINTS, len(curves.parameters)))
        self.optimum = float(self._model.predict(grid)[:, :, -1].max())
        """The best true value at the full budget."""

    def true_value(self, values: Mapping[str, Value]) -> float:
        """The value at the full budget without a trial's luck."""
        mean = self._model.predict(self._unit(values))[0]
        return float(self._at_momentum(mean, float(values["ema_momentum"]))[-1])

    def curve(
        self, values: Mapping[str, Value], momenta: Sequence[float], seed: int
    ) -> dict[float, Array]:
        """What a trial would report at each step, for each momentum; its luck is the seed's."""
        point = self._unit(values)
        key = np.frombuffer(point.tobytes(), dtype=np.uint32)
        rng = np.random.default_rng([seed, *key])
        # Normal weights of the recorded deviations: their sum has the deviations' covariance.
        weights = rng.standard_normal(len(self._deviations)) / np.sqrt(len(self._deviations))
        table = self._model.predict(point)[0] + np.tensordot(weights, self._deviations, axes=1)
        return {x: self._at_momentum(table, x).clip(0, 1) for x in momenta}

    def _unit(self, values: Mapping[str, Value]) -> Array:
        unit = [float(to_unit(x, values[name])) for name, x in self.curves.parameters.items()]
        return np.array([unit])

    def _at_momentum(self, table: Array, momentum: float) -> Array:
        """(steps,) of a (momenta, steps) table."""
        recorded = -np.log1p(-self.curves.momenta)
        wanted = -math.log1p(-momentum)
        return np.array([np.interp(wanted, recorded, column) for column in table.T])


def leave_one_out(curves: RecordedCurves) -> Array:
    """Each trial's values as predicted from all others, (trials, momenta, steps)."""
    predictions = np.empty_like(curves.values)
    for index in range(len(curves.points)):
        others = np.arange(len(curves.points)) != index
        model = _Model(curves.points[others], curves.values[others])
        predictions[index] = model.predict(curves.points[index : index + 1])[0]
    return predictions


def held_out_errors(curves: RecordedCurves) -> pd.DataFrame:
    """Root mean squared leave-one-out errors at the full budget, beside simpler predictions."""
    values = curves.values[:, :, -1]
    count = len(values)
    distances = np.linalg.norm(curves.points[:, None] - curves.points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    predictions = {
        "mean of the other trials": (values.sum(axis=0) - values) / (count - 1),
        "nearest other trial": values[distances.argmin(axis=1)],
        "model": leave_one_out(curves)[:, :, -1],
    }
    return pd.DataFrame(
        {
            "prediction": list(predictions),
            "rmse": [float(np.sqrt(((values - x) ** 2).mean())) for x in predictions.values()],
        }
    )


class _Model:
    """From settings to the values at each momentum and step.

    The level of a trial, its median over the momenta, is a Gaussian process of the settings; what
    each momentum adds at each step is an average over the trials, for from so few no dependence
    of it on the settings can be learned that predicts trials held out.
    """

    def __init__(self, points: Array, values: Array) -> None:
        """Fits to points (trials, settings) and values (trials, momenta, steps)."""
        levels = np.median(values, axis=1)
        self._momenta = (values - levels[:, None]).mean(axis=0)
        # Shorter than a third of a setting's range, some dozen trials cannot tell from noise.
        kernel = ConstantKernel(1.0) * Matern(np.ones(points.shape[1]), (0.3, 30.0), nu=2.5)
        self._levels = GaussianProcessRegressor(
            kernel + WhiteKernel(0.5, (1e-3, 10.0)), normalize_y=True, random_state=0
        )
        with warnings.catch_warnings():
            # A length scale at its bound says only that a setting hardly matters.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._levels.fit(points, levels)

    def predict(self, points: Array) -> Array:
        """(points, momenta, steps)."""
        levels: Array = self._levels.predict(points)
        curves: Array = levels[:, None] + self._momenta
        return curves


def to_unit(parameter: FloatParameter, values: npt.ArrayLike) -> Array:
    """Where values lie between a parameter's bounds, from 0 to 1, evenly along its scale."""
    scale = parameter.scale
    low, high, x = (_along(scale, value) for value in (parameter.low, parameter.high, values))
    return (x - low) / (high - low)


def from_unit(parameter: FloatParameter, fraction: float) -> float:
    """The value that lies at a fraction of the way between a parameter's bounds."""
    low, high = (float(_along(parameter.scale, x)) for x in (parameter.low, parameter.high))
    x = low + fraction * (high - low)
    match parameter.scale:
        case "log":
            return math.exp(x)
        case "log_complement":
            return -math.expm1(-x)
        case _:
            return x


def _along(scale: str, values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    match scale:
        case "log":
            return np.log(array)
        case "log_complement":
            return -np.log1p(-array)
        case _:
            return array
