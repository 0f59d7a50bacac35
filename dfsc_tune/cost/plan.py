"""Estimates the trials, steps, hours and money of a search before it is launched."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dfsc_tune.bench.sharing import best_count
from dfsc_tune.config import ModelConfig, TrialConfig
from dfsc_tune.cost.expected import TrialTimes, expect
from dfsc_tune.cost.throughput import (
    Throughput,
    bench,
    find_throughput,
    guess_throughput,
    read_throughput,
)
from dfsc_tune.data.records import Category
from dfsc_tune.errors import UserError
from dfsc_tune.search.request import AUTO, TrialsPerGpu
from dfsc_tune.spaces.parameters import FloatParameter, FreeParameter
from dfsc_tune.spaces.space import REFERENCES, CategorySpace, SearchSpace
from dfsc_tune.training.objectives import chosen_objective, objective_named

HOUR = 3600.0
# A guessed throughput may easily be wrong by this factor.
_FACTOR_OF_A_GUESS = 3.0


@dataclass(frozen=True)
class Price:
    """The price of an hour, in the user's currency."""

    per_hour: float
    """The price of a GPU, or of an instance."""
    gpus_per_instance: int | None = None
    """None if GPUs are paid one by one."""

    def per_hour_of(self, gpus: int) -> float:
        """Returns the hourly price of some GPUs, in whole instances; one instance without GPUs."""
        if self.gpus_per_instance is None:
            return self.per_hour * gpus
        return self.per_hour * max(1, math.ceil(gpus / self.gpus_per_instance))


@dataclass(frozen=True)
class Plan:
    """A search whose cost is to be estimated."""

    space: SearchSpace
    num_scored: Mapping[str, int]
    """Images scored at a report, by category; the keys are the categories to search."""
    gpus: int
    """0 means that trials run on the CPU cores of one machine."""
    gpus_per_trial: float
    num_cpus: int
    """CPU cores of the machine, if trials run on them."""

    @cached_property
    def spaces(self) -> dict[str, CategorySpace]:
        """The search space of each category."""
        return {x: self.space.for_category(x) for x in self.num_scored}

    @cached_property
    def configs(self) -> dict[str, TrialConfig]:
        """A trial's settings in each category before any parameter is chosen."""
        return {x: space.base_config(x) for x, space in self.spaces.items()}

    @property
    def on_gpu(self) -> bool:
        """True if trials run on GPUs."""
        return self.gpus > 0

    @property
    def num_references(self) -> int:
        """Trials of a category that ASHA never stops."""
        points = (space.first_points() for space in self.spaces.values())
        return max(sum(role in REFERENCES for role, _ in of_category) for of_category in points)

    @property
    def num_trials(self) -> dict[str, int]:
        """Trials of each category."""
        wanted = self.space.budget.num_trials
        return {x: space.num_expected(wanted) for x, space in self.spaces.items()}

    @property
    def at_once(self) -> int:
        """Number of trials that run at the same time on all devices."""
        fit = (
            self.gpus / self.gpus_per_trial
            if self.on_gpu
            else self.num_cpus / self.space.resources.cpus_per_trial
        )
        return max(1, min(int(fit + 1e-9), sum(self.num_trials.values())))

    @property
    def at_once_a_device(self) -> int:
        """Number of trials that share a device when all devices are busy."""
        share = int(1 / self.gpus_per_trial + 1e-9) if self.on_gpu else self.at_once
        return max(1, min(share, self.at_once))

    @property
    def model(self) -> ModelConfig:
        """The network and image size that all categories share.

        Raises:
            UserError: they differ between categories, so no single throughput holds.
        """
        return _shared_model(self.configs)

    def num_momenta(self, category: str) -> int:
        """Returns the number of EMA momenta that each report scores."""
        train = self.configs[category].train
        searched = self.spaces[category].parameters.get("ema_momentum")
        if searched is None or isinstance(searched, FreeParameter):
            return len(train.ema_momenta)
        extra = set(train.extra_ema_momenta)
        scored_anyway = not isinstance(searched, FloatParameter) and extra >= set(searched.bounds())
        return len(extra) + (not scored_anyway)


def plan_search(
    space: SearchSpace,
    categories: Iterable[Category],
    gpus: int,
    trials_per_gpu: TrialsPerGpu,
    results: Path,
    record: Path | None = None,
) -> tuple[Plan, Throughput]:
    """The plan of a search, and the throughput that its estimate goes by.

    Args:
        space: what is searched.
        categories: of it.
        gpus: 0 means that trials run on CPU cores.
        trials_per_gpu: as in `SearchRequest`; `auto` as measured.
        results: the folder with the benchmarks' records.
        record: a benchmark's; None for the newest that fits.

    Raises:
        UserError: a category lacks what the objective needs, categories differ in their model, the
            record is none, or nothing was measured for `auto`.
    """
    num_scored = {category.name: _num_scored(category, space) for category in categories}
    configs = {name: space.for_category(name).base_config(name) for name in num_scored}
    throughput = choose_throughput(
        _shared_model(configs), gpus > 0, space.resources.cpus_per_trial, results, record
    )
    share = space.resources.gpus_per_trial or 1.0
    if trials_per_gpu == AUTO:
        share = 1 / best_at_once(throughput)
    elif trials_per_gpu is not None:
        share = 1 / trials_per_gpu
    return Plan(space, num_scored, gpus, share, throughput.num_cpus), throughput


def gpus_of(record: Path | None) -> int:
    """GPUs of the machine that a benchmark's record is of; of this one if there is none."""
    if record is not None:
        return read_throughput(record).num_gpus
    # A plan is made without torch unless this must be known.
    import torch

    return torch.cuda.device_count()


def _num_scored(category: Category, space: SearchSpace) -> int:
    """Images that each report of a category scores."""
    settings = chosen_objective(category, space.objective)
    objective = objective_named(settings.name)
    split = objective.split(category, settings)
    return objective.num_scored(
        len(category.validation),
        len(split.selection) + sum(split.anomalies.values()),
        space.budget.num_steps,
        space.budget.report_interval,
    )


def _shared_model(configs: Mapping[str, TrialConfig]) -> ModelConfig:
    """The model of all categories; UserError where they differ in what decides the throughput."""
    (name, first), *others = configs.items()
    for category, config in others:
        model = config.model
        if (model.network, model.image_size) != (first.model.network, first.model.image_size):
            raise UserError(
                f"{name} and {category} differ in network or image size; plan them separately"
            )
    return first.model


def choose_throughput(
    model: ModelConfig, on_gpu: bool, cpus_per_trial: int, results: Path, record: Path | None
) -> Throughput:
    """Returns the throughput of the record given, else of the newest that fits, else a guess.

    Args:
        model: the network and image size of the trials.
        on_gpu: whether they run on GPUs.
        cpus_per_trial: CPU threads of each.
        results: the folder with the benchmarks' records.
        record: a benchmark's record.

    Raises:
        UserError: the file given is not a benchmark record.
    """
    if record is not None:
        return read_throughput(record)
    return find_throughput(results, model, on_gpu) or guess_throughput(
        model, on_gpu, os.cpu_count() or 1, cpus_per_trial
    )


def best_at_once(throughput: Throughput) -> int:
    """Returns the number of trials per device that `search --trials-per-gpu auto` would choose.

    Raises:
        UserError: the throughput is a guess.
    """
    if not throughput.created:
        raise UserError("--trials-per-gpu auto needs a benchmark record; see dfsc-tune bench")
    return best_count(throughput.steps_per_second)


@dataclass(frozen=True)
class Estimate:
    """The mean cost of a search at the throughput given."""

    num_trials: dict[str, int]
    at_once: int
    at_once_a_device: int
    steps: int
    most_steps: int
    """Steps if no trial were stopped early."""
    seconds_per_step: float
    """Of a trial that shares its device with others."""
    seconds_per_report: dict[str, float]
    trial_hours: float
    """Of all trials added up."""
    wall_hours: float
    device: str
    """The unit of the device hours: GPU, or CPU core."""
    device_hours: float
    """Hours of all devices from launch to the last trial's end, in use or not."""
    used_device_hours: float
    """Hours in which a trial held a device, or its share of one."""
    cost: float | None
    """Of the wall time, in the currency of the price."""
    factor: float
    """Hours and money may be higher or lower by this factor; 1 if the throughput was measured."""
    throughput: Throughput
    notes: list[str]


def estimate(plan: Plan, throughput: Throughput, price: Price | None = None) -> Estimate:
    """Estimates what a search will take.

    Args:
        plan: the search.
        throughput: of its model on its kind of device.
        price: per hour; None if unknown.

    Raises:
        UserError: the throughput belongs to another model or kind of device, or the price is per
            GPU and the search runs on CPU cores.
    """
    throughput.check_model(plan.model)
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
    expected = expect(budget, counts, plan.at_once, list(times.values()), plan.num_references)
    wall_hours, trial_hours = expected.wall_seconds / HOUR, expected.trial_seconds / HOUR
    cores = min(plan.space.resources.cpus_per_trial, plan.num_cpus)
    share = plan.gpus_per_trial if plan.on_gpu else cores
    return Estimate(
        num_trials=num_trials,
        at_once=plan.at_once,
        at_once_a_device=sharing,
        steps=round(expected.steps),
        most_steps=sum(counts) * budget.num_steps,
        seconds_per_step=throughput.seconds_per_step(sharing),
        seconds_per_report={x: of.seconds_per_report for x, of in times.items()},
        trial_hours=trial_hours,
        wall_hours=wall_hours,
        device="GPU" if plan.on_gpu else "CPU core",
        device_hours=wall_hours * (plan.gpus if plan.on_gpu else plan.num_cpus),
        used_device_hours=trial_hours * share,
        cost=wall_hours * price.per_hour_of(plan.gpus) if price else None,
        factor=1.0 if throughput.created else _FACTOR_OF_A_GUESS,
        throughput=throughput,
        notes=_notes(plan, throughput),
    )


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
    """Returns notes on what makes the estimate less certain, each with a remedy if there is one."""
    notes = []
    sharing = plan.at_once_a_device
    if not throughput.created:
        notes.append(
            "the throughput is a guess and may be wrong by a factor of three; measure it: "
            f"{bench(plan.model)}"
        )
    elif throughput.known(sharing) < sharing:
        notes.append(
            f"{sharing} trials at once were not measured; together they are taken to be as fast as "
            f"{throughput.known(sharing)}; measure it: {bench(plan.model)} --at-once 1,{sharing}"
        )
    for category in plan.num_scored:
        train = plan.configs[category].train
        if train.autoencoder_augmentation or train.penalty_images:
            notes.append(
                f"{category}: autoencoder_augmentation and penalty_images make a step slower than "
                "estimated here"
            )
    return notes
