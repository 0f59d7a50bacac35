"""What a search will cost before it is launched, and how far that was off after it ran."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.bench.packing import best_count
from dfsc_tune.config import ModelConfig, TrialConfig
from dfsc_tune.cost.expected import Spread, TrialTimes, expect
from dfsc_tune.cost.prices import Price
from dfsc_tune.cost.throughput import (
    Throughput,
    bench,
    find_throughput,
    guess_throughput,
    read_throughput,
)
from dfsc_tune.errors import UserError
from dfsc_tune.metrics.image import GOOD
from dfsc_tune.results import DatasetRecord, Run, space_of_run
from dfsc_tune.search.ledger import working_seconds
from dfsc_tune.spaces.parameters import FloatParameter, FreeParameter
from dfsc_tune.spaces.space import SPARED, Budget, SearchSpace
from dfsc_tune.training.objectives import num_judged

_HOUR = 3600.0


@dataclass(frozen=True)
class Plan:
    """A search whose cost is to be known."""

    space: SearchSpace
    num_scored: Mapping[str, int]
    """Images scored at a report, by category: those to be searched."""
    gpus: int
    """0 means that trials run on the CPU cores of one machine."""
    gpus_per_trial: float
    num_cpus: int
    """Of the machine, where trials run on CPU cores."""

    @property
    def on_gpu(self) -> bool:
        """Whether trials run on GPUs."""
        return self.gpus > 0

    @property
    def num_spared(self) -> int:
        """Trials of a category that ASHA never stops."""
        points = (self.space.for_category(x).first_points() for x in self.num_scored)
        return max(sum(role in SPARED for role, _ in of_category) for of_category in points)

    @property
    def num_trials(self) -> dict[str, int]:
        """Trials of each category."""
        wanted = self.space.budget.num_trials
        return {x: self.space.for_category(x).num_expected(wanted) for x in self.num_scored}

    @property
    def at_once(self) -> int:
        """How many trials run at the same time on all devices."""
        fit = (
            self.gpus / self.gpus_per_trial
            if self.on_gpu
            else self.num_cpus / self.space.resources.cpus_per_trial
        )
        return max(1, min(int(fit + 1e-9), sum(self.num_trials.values())))

    @property
    def at_once_a_device(self) -> int:
        """How many trials share a device when all are busy."""
        share = int(1 / self.gpus_per_trial + 1e-9) if self.on_gpu else self.at_once
        return max(1, min(share, self.at_once))

    def config(self, category: str) -> TrialConfig:
        """A trial's settings before any parameter is chosen."""
        return self.space.for_category(category).base_config(category)

    def num_momenta(self, category: str) -> int:
        """EMA momenta that each report scores."""
        train = self.config(category).train
        searched = self.space.for_category(category).parameters.get("ema_momentum")
        if searched is None or isinstance(searched, FreeParameter):
            return len(train.ema_momenta)
        extra = set(train.extra_ema_momenta)
        scored_anyway = not isinstance(searched, FloatParameter) and extra >= set(searched.bounds())
        return len(extra) + (not scored_anyway)


def the_model(space: SearchSpace, categories: list[str]) -> ModelConfig:
    """The network and image size that all categories share.

    Raises:
        UserError: they differ, so no one throughput holds.
    """
    models = {x: space.for_category(x).base_config(x).model for x in categories}
    first = models[categories[0]]
    for category, model in models.items():
        if (model.network, model.image_size) != (first.network, first.image_size):
            raise UserError(
                f"{categories[0]} and {category} differ in network or image size; plan them apart"
            )
    return first


def choose_throughput(
    space: SearchSpace, categories: list[str], on_gpu: bool, results: Path, record: Path | None
) -> Throughput:
    """The throughput of a search: the record given, else the newest that fits, else a guess.

    Args:
        space: what is searched.
        categories: of it.
        on_gpu: whether trials run on GPUs.
        results: the folder with the benchmarks' records.
        record: a benchmark's record.

    Raises:
        UserError: there is no one model, or the record is none.
    """
    model = the_model(space, categories)
    if record is not None:
        return read_throughput(record)
    cpus_per_trial, num_cpus = space.resources.cpus_per_trial, os.cpu_count() or 1
    return find_throughput(results, model, on_gpu) or guess_throughput(
        model, on_gpu, num_cpus, cpus_per_trial
    )


def best_at_once(throughput: Throughput) -> int:
    """How many trials pay on one device, as `search --trials-per-gpu auto` would choose.

    Raises:
        UserError: the throughput is a guess.
    """
    if not throughput.created:
        raise UserError("--trials-per-gpu auto needs a benchmark record; see dfsc-tune bench")
    return best_count(throughput.steps_per_second)


@dataclass(frozen=True)
class Estimate:
    """What a search will take; each spread is over simulated searches, at the throughput given."""

    num_trials: dict[str, int]
    at_once: int
    at_once_a_device: int
    steps: Spread
    most_steps: int
    """If no trial were stopped early."""
    num_simulations: int
    seconds_per_step: float
    """Of a trial beside others."""
    seconds_per_report: dict[str, float]
    trial_hours: Spread
    """Of all trials added up."""
    wall_hours: Spread
    device: str
    """What hours are counted of: GPU, or CPU core."""
    device_hours: Spread
    """From launch to the last trial's end, whether in use or not."""
    used_device_hours: Spread
    """In which a trial held the device, or its share of it."""
    cost: Spread | None
    """Of the wall time, in the currency of the price."""
    throughput: Throughput
    notes: list[str]


def estimate(
    plan: Plan, throughput: Throughput, seed: int = 0, price: Price | None = None
) -> Estimate:
    """What the search will take.

    Args:
        plan: the search.
        throughput: of its model and kind of device.
        seed: of the simulated searches.
        price: per hour; None if nothing is known.

    Raises:
        UserError: the throughput is of another model or kind of device, or the price of something
            else.
    """
    throughput.check_model(the_model(plan.space, list(plan.num_scored)))
    if throughput.on_gpu != plan.on_gpu:
        here, there = ("GPUs", "a CPU") if plan.on_gpu else ("CPU cores", "a GPU")
        raise UserError(
            f"the search runs on {here}, and {throughput.source} was measured on {there}"
        )
    if price and not plan.on_gpu and price.gpus_per_instance is None:
        raise UserError("the search runs on CPU cores: give --price-per-instance-hour")
    sharing, budget = plan.at_once_a_device, plan.space.budget
    times = {x: _times(plan, throughput, x) for x in plan.num_scored}
    num_trials = plan.num_trials
    counts = list(num_trials.values())
    expected = expect(
        budget, counts, plan.at_once, list(times.values()), seed, num_spared=plan.num_spared
    )
    wall_hours = expected.wall_seconds.times(1 / _HOUR)
    trial_hours = expected.trial_seconds.times(1 / _HOUR)
    cores = min(plan.space.resources.cpus_per_trial, plan.num_cpus)
    share = plan.gpus_per_trial if plan.on_gpu else cores
    return Estimate(
        num_trials=num_trials,
        at_once=plan.at_once,
        at_once_a_device=sharing,
        steps=expected.steps,
        most_steps=sum(counts) * budget.num_steps,
        num_simulations=expected.num_simulations,
        seconds_per_step=throughput.seconds_per_step(sharing),
        seconds_per_report={x: of.seconds_per_report for x, of in times.items()},
        trial_hours=trial_hours,
        wall_hours=wall_hours,
        device="GPU" if plan.on_gpu else "CPU core",
        device_hours=wall_hours.times(plan.gpus if plan.on_gpu else plan.num_cpus),
        used_device_hours=trial_hours.times(share),
        cost=wall_hours.times(price.per_hour_of(plan.gpus)) if price else None,
        throughput=throughput,
        notes=_notes(plan, throughput),
    )


def plan_of_run(run: Run, gpus: int | None = None) -> Plan:
    """The plan of a search that ran, from its settings.

    Args:
        run: as loaded.
        gpus: how many it had, where its settings do not say.

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
        category: read.validation + _num_selected(read, space.budget)
        for category, read in settings.datasets.items()
    }
    num_cpus = settings.hardware.num_cpus or 1
    return Plan(space, num_scored, (gpus or 0) if share else 0, share, num_cpus)


@dataclass(frozen=True)
class Difference:
    """An estimated quantity beside what it was."""

    quantity: str
    estimated: Spread
    actual: float

    @property
    def off(self) -> float:
        """How far the estimate's mean was off, as a share of what it was; above 0: too high."""
        return self.estimated.mean / self.actual - 1 if self.actual else math.inf


def differences(expected: Estimate, run: Run) -> list[Difference]:
    """How far an estimate was off, from what a run's trials took.

    The wall time is that in which the run's sessions were at work (`working_seconds`).

    Raises:
        UserError: no trial has ended.
    """
    trials = run.trials[~run.trials["state"].isin(["running", "interrupted"])]
    if trials.empty:
        raise UserError(f"no trial of the run {run.folder} has ended yet")
    steps, seconds = int(trials["step"].sum()), float(trials["seconds"].sum())
    num_trials = sum(expected.num_trials.values())
    seconds_per_step = expected.trial_hours.mean * _HOUR / expected.steps.mean
    found = [
        Difference("trials", _exactly(num_trials), len(trials)),
        Difference("steps", expected.steps, steps),
        Difference(
            "seconds a step, scoring included", _exactly(seconds_per_step), seconds / max(steps, 1)
        ),
        Difference("hours of all trials", expected.trial_hours, seconds / _HOUR),
    ]
    wall_seconds = working_seconds(run.folder)
    if wall_seconds is not None and len(trials) == num_trials:
        found.append(Difference("hours of wall time", expected.wall_hours, wall_seconds / _HOUR))
    return found


def _exactly(value: float) -> Spread:
    return Spread(value, value, value)


def _num_selected(dataset: DatasetRecord, budget: Budget) -> int:
    """Images of the selection part that a report scores."""
    counts = dataset.selection
    num_good = counts[GOOD]
    num_anomalies = sum(counts.values()) - num_good
    if dataset.objective == "synthetic":
        num_anomalies = num_judged(num_anomalies, budget.num_steps, budget.report_interval)
    return num_good + num_anomalies


def _times(plan: Plan, throughput: Throughput, category: str) -> TrialTimes:
    sharing = plan.at_once_a_device
    num_scored = plan.num_scored[category] * plan.num_momenta(category)
    return TrialTimes(
        seconds_per_step=throughput.seconds_per_step(sharing),
        seconds_per_report=throughput.seconds_per_scored_image
        * num_scored
        * throughput.slowdown(sharing),
        seconds_to_start=throughput.seconds_to_start,
    )


def _notes(plan: Plan, throughput: Throughput) -> list[str]:
    """What makes the estimate less sure than its spread."""
    notes = []
    model = the_model(plan.space, list(plan.num_scored))
    sharing = plan.at_once_a_device
    if not throughput.created:
        notes.append(f"the throughput is a guess, easily off threefold; measure: {bench(model)}")
    elif throughput.known(sharing) < sharing:
        notes.append(
            f"{sharing} trials at once were not measured: taken as fast together as "
            f"{throughput.known(sharing)}; measure: {bench(model)} --at-once 1,{sharing}"
        )
    for category in plan.num_scored:
        train = plan.config(category).train
        if train.autoencoder_augmentation or train.penalty_images:
            notes.append(
                f"{category}: autoencoder_augmentation and penalty_images make a step slower than "
                "the one counted here"
            )
    return notes
