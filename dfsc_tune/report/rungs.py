"""ASHA's rungs: how many trials reached each, how many it stopped there, and at what values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Rung:
    """One step at which ASHA compares trials."""

    step: int
    reached: int
    stopped: int
    median: float
    """Of the values reported there."""
    best: float
    highest_stopped: float | None
    """The best value that was not good enough."""


def rung_steps(budget: Mapping[str, Any]) -> list[int]:
    """The steps of the rungs: grace_period · reduction_factor^k below the full budget."""
    steps, step = [], int(budget["grace_period"])
    while step < budget["num_steps"]:
        steps.append(step)
        step *= int(budget["reduction_factor"])
    return steps


def rung_table(
    trials: pd.DataFrame, reports: pd.DataFrame, budget: Mapping[str, Any]
) -> list[Rung]:
    """The rungs that some trial reached, from the first.

    A trial is judged at its first report at or after the rung's step.

    Args:
        trials: of one category.
        reports: of the same category, the trials' own EMA momentum only, with `value`.
        budget: the search space's.
    """
    steps = rung_steps(budget)
    found = []
    for step, following in zip(steps, [*steps[1:], budget["num_steps"]], strict=True):
        judged = reports[reports["step"] >= step].sort_values("step").drop_duplicates("trial")
        if judged.empty:
            continue
        pruned = trials[(trials["state"] == "pruned") & trials["step"].between(step, following - 1)]
        stopped = judged[judged["trial"].isin(pruned["trial"])]
        found.append(
            Rung(
                step=step,
                reached=len(judged),
                stopped=len(stopped),
                median=float(judged["value"].median()),
                best=float(judged["value"].max()),
                highest_stopped=float(stopped["value"].max()) if len(stopped) else None,
            )
        )
    return found
