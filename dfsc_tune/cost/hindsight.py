"""Compares the plan of a search with what the search took."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dfsc_tune.cost.plan import HOUR, Estimate, Plan
from dfsc_tune.errors import UserError
from dfsc_tune.metrics.image import GOOD
from dfsc_tune.results import DatasetRecord, Run, ended_trials, space_of_run
from dfsc_tune.search.ledger import working_seconds
from dfsc_tune.spaces.space import Budget
from dfsc_tune.training.objectives import objective_named


def plan_of_run(run: Run, gpus: int | None = None) -> Plan:
    """Returns the plan of a search that ran, from its settings.

    Args:
        run: as loaded.
        gpus: number of GPUs that it had, if its settings do not say.

    Raises:
        UserError: the settings do not say how many GPUs it had.
    """
    settings = run.settings
    space = space_of_run(settings, run.folder)
    share = settings.gpus_per_trial or 0.0
    if settings.device == "cpu":
        # GPUs of a rehearsal were only counted: its trials ran on CPU cores.
        share = 0.0
    if share and gpus is None:
        gpus = settings.gpus
        if gpus is None and settings.address:
            raise UserError(f"the run {run.folder} had a cluster's GPUs: say how many with --gpus")
        gpus = gpus or len(settings.hardware.gpus)
    num_scored = {
        category: _num_scored(read, space.budget) for category, read in settings.datasets.items()
    }
    num_cpus = settings.hardware.num_cpus or 1
    return Plan(space, num_scored, (gpus or 0) if share else 0, share, num_cpus)


@dataclass(frozen=True)
class Difference:
    """An estimated quantity beside the actual one."""

    quantity: str
    estimated: float
    actual: float

    @property
    def off(self) -> float:
        """The estimate's relative error; positive if it was too high."""
        return self.estimated / self.actual - 1 if self.actual else math.inf


def differences(expected: Estimate, run: Run) -> list[Difference]:
    """Compares an estimate with what a run's trials took.

    The wall time is the time in which the run's sessions were at work (`working_seconds`).

    Raises:
        UserError: no trial has ended.
    """
    trials = ended_trials(run.trials)
    if trials.empty:
        raise UserError(f"no trial of the run {run.folder} has ended yet")
    steps, seconds = int(trials["step"].sum()), float(trials["seconds"].sum())
    num_trials = sum(expected.num_trials.values())
    seconds_per_step = expected.trial_hours * HOUR / expected.steps
    found = [
        Difference("trials", num_trials, len(trials)),
        Difference("steps", expected.steps, steps),
        Difference("seconds a step, scoring included", seconds_per_step, seconds / max(steps, 1)),
        Difference("hours of all trials", expected.trial_hours, seconds / HOUR),
    ]
    wall_seconds = working_seconds(run.folder)
    if wall_seconds is not None and len(trials) == num_trials:
        found.append(Difference("hours of wall time", expected.wall_hours, wall_seconds / HOUR))
    return found


def _num_scored(dataset: DatasetRecord, budget: Budget) -> int:
    """Returns the mean number of images that a report scores."""
    objective, counts = objective_named(dataset.objective), dataset.selection
    besides = sum(counts.values()) - (counts[GOOD] if objective.judges_validation else 0)
    return objective.num_scored(
        dataset.validation, besides, budget.num_steps, budget.report_interval
    )
