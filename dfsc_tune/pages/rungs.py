"""ASHA's rungs: how many trials reached each, how many it stopped there, and at what values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dfsc_tune.spaces import asha
from dfsc_tune.spaces.space import Budget


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


def rung_steps(budget: Budget) -> list[int]:
    """The steps of the rungs that can stop a trial: those below the full budget."""
    steps = asha.rung_steps(budget.num_steps, budget.grace_period, budget.reduction_factor)
    return [step for step in steps if step < budget.num_steps]


def rung_table(trials: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> list[Rung]:
    """The rungs at which some trial was judged, from the first.

    What stops a trial is the last rung at which it was judged.

    Args:
        trials: of one category.
        reports: of the same category, the trials' own EMA momentum only, with `value`.
        budget: the search space's.
    """
    judged = _judged(reports[reports["step"] < budget.num_steps], rung_steps(budget))
    pruned = trials.loc[trials["state"] == "pruned", "trial"]
    last = judged.drop_duplicates("trial", keep="last")
    stopped = last[last["trial"].isin(pruned)]
    found = []
    for step, at_rung in judged.groupby("rung"):
        stopped_here = stopped.loc[stopped["rung"] == step, "value"]
        found.append(
            Rung(
                step=int(str(step)),
                reached=len(at_rung),
                stopped=len(stopped_here),
                median=float(at_rung["value"].median()),
                best=float(at_rung["value"].max()),
                highest_stopped=float(stopped_here.max()) if len(stopped_here) else None,
            )
        )
    return found


def _judged(reports: pd.DataFrame, steps: Sequence[int]) -> pd.DataFrame:
    """The reports that counted at a rung, in their order: `rung`, `trial`, `value`."""
    ordered = reports.sort_values("step", kind="stable")
    known: dict[str, set[int]] = defaultdict(set)
    rows = []
    for trial, step, value in ordered[["trial", "step", "value"]].itertuples(index=False):
        rung = asha.rung_of_report(steps, step, known[trial])
        if rung is not None:
            known[trial].add(rung)
            rows.append((rung, trial, value))
    return pd.DataFrame(rows, columns=["rung", "trial", "value"])
