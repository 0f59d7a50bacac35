"""Runs a search: reads the data, starts Ray, lets Tune run the trials, publishes what was found."""

from __future__ import annotations

import functools
import math
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import torch
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from rich.console import Console

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.models.teacher_files import random_teacher_warning
from dfsc_tune.prepare import CategoryData, prepare_category
from dfsc_tune.publish import publish
from dfsc_tune.results import create_run, describe_machine, write_settings
from dfsc_tune.search.live import LiveView
from dfsc_tune.search.recorder import Recorder
from dfsc_tune.search.scheduler import CategoryAsha
from dfsc_tune.search.searcher import StudySearcher
from dfsc_tune.search.space import SearchSpace
from dfsc_tune.search.study import CategoryStudy
from dfsc_tune.search.trainable import tune_trial

_MAX_FAILURES = 2
_CONNECT_SECONDS = 5
JOURNAL = "study.journal"


@dataclass(frozen=True)
class SearchRequest:
    """What a user asks for."""

    categories: tuple[str, ...]
    data: Path
    data_name: str | None
    """The data folder as the configs should name it; none for the built-in data."""
    space: SearchSpace
    results: Path
    name: str
    seed: int = 0
    gpus: int | None = None
    """GPUs to use; none means all there are."""
    address: str | None = None
    """A Ray cluster; none means one of our own on this machine."""
    device: Literal["auto", "cpu"] = "auto"
    """`cpu` keeps trials off GPUs; GPUs asked for are then only counted, to rehearse a schedule."""

    @property
    def cluster(self) -> str | None:
        """The Ray cluster to join: the one given, else the one the environment names."""
        return self.address or os.environ.get("RAY_ADDRESS")


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    folder: Path
    num_expected: int
    num_ended: int
    num_failed: int
    interrupted: bool


def run_search(request: SearchRequest, console: Console) -> Outcome:
    """Searches the categories and leaves the run's folder.

    Args:
        request: what to search, with what, and where to put it.
        console: for progress; results go to files.

    Raises:
        UserError: the request cannot be met; nothing was trained.
    """
    _check_reachable(request)
    bases = {category: _base_config(request, category) for category in request.categories}
    folder = create_run(request.results, request.name)
    with ExitStack() as session:
        with _removed_on_error(folder):
            data = _prepare(request, bases, console)
            session.enter_context(_ray(request))
            _check_cluster(request)
            write_settings(folder, _settings(request, data))
        studies = {
            category: _study(request, category, base, folder) for category, base in bases.items()
        }
        recorder = Recorder(folder)
        expected = {category: study.num_expected for category, study in studies.items()}
        view = LiveView(recorder, expected, list(request.space.parameters), console)
        session.callback(view.close)
        _fit(request, folder, data, StudySearcher(studies, bases), [recorder, view])
    tables = recorder.tables
    with console.status("scoring the best models …"):
        publish(folder, data, tables.configs, recorder.checkpoints)
    ended = [row for row in tables.trials.values() if row["state"] != "running"]
    return Outcome(
        folder=folder,
        num_expected=sum(expected.values()),
        num_ended=len(ended),
        num_failed=sum(row["state"] == "failed" for row in ended),
        interrupted=len(ended) < sum(expected.values()),
    )


def _fit(
    request: SearchRequest,
    folder: Path,
    data: Mapping[str, CategoryData],
    searcher: StudySearcher,
    callbacks: list[tune.Callback],
) -> None:
    resources = request.space.resources
    gpus_per_trial = _gpus_per_trial(request)
    on_gpu = gpus_per_trial > 0 and request.device == "auto"
    shared = {category: ray.put(read.trial) for category, read in data.items()}
    trainable = functools.partial(
        tune_trial,
        data=shared,
        num_threads=resources.cpus_per_trial,
        device="cuda" if on_gpu else "cpu",
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": resources.cpus_per_trial, "gpu": gpus_per_trial}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=CategoryAsha(request.space.budget),
            num_samples=-1,
            max_concurrent_trials=_max_concurrent(request),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.config['category']}_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.resolve()),
            callbacks=[*callbacks, JsonLoggerCallback()],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
            verbose=0,
        ),
    )
    tuner.fit()


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    """Removes a run's folder when the search cannot start: nothing is lost, the name is free."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        raise


def _study(request: SearchRequest, category: str, base: TrialConfig, folder: Path) -> CategoryStudy:
    return CategoryStudy(
        request.space.for_category(category),
        base,
        name=f"{request.name}/{category}",
        num_trials=request.space.budget.num_trials,
        sampler=request.space.sampler,
        seed=request.seed,
        journal=folder / JOURNAL,
    )


def _base_config(request: SearchRequest, category: str) -> TrialConfig:
    budget = request.space.budget
    return request.space.for_category(category).base_config(
        category,
        data=request.data_name,
        objective=request.space.objective.model_dump(),
        train={"num_steps": budget.num_steps, "report_interval": budget.report_interval},
        seed=request.seed,
    )


def _prepare(
    request: SearchRequest, bases: Mapping[str, TrialConfig], console: Console
) -> dict[str, CategoryData]:
    device = "cuda" if torch.cuda.is_available() and request.device == "auto" else "cpu"
    data = {}
    for category, base in bases.items():
        with console.status(f"reading {category} …"):
            data[category] = prepare_category(base, request.data, device)
        for note in data[category].notes:
            console.print(f"note: {category}: {note}", highlight=False, markup=False)
    # Categories mostly share their model: each warning once.
    for warning in sorted({random_teacher_warning(base.model) or "" for base in bases.values()}):
        if warning:
            console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    return data


def _settings(request: SearchRequest, data: Mapping[str, CategoryData]) -> dict[str, Any]:
    space = request.space
    return {
        "name": request.name,
        "categories": list(request.categories),
        "data": request.data_name,
        "seed": request.seed,
        "objective": space.objective.model_dump(),
        "searched": {x: list(space.for_category(x).parameters) for x in request.categories},
        "gpus": request.gpus,
        "gpus_per_trial": _gpus_per_trial(request),
        "device": request.device,
        "address": request.address,
        "space": space.model_dump(mode="json"),
        "datasets": {name: read.summary() for name, read in data.items()},
        **describe_machine(),
    }


@contextmanager
def _ray(request: SearchRequest) -> Iterator[None]:
    """Ray, connected or started, for the time of the block."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if request.cluster:
        try:
            ray.init(address=request.cluster, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise _no_cluster(request) from error
    else:
        ray.init(include_dashboard=False, **_local_resources(request), **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _local_resources(request: SearchRequest) -> dict[str, Any]:
    resources = request.space.resources
    num_cpus = max(os.cpu_count() or 1, resources.cpus_per_trial)
    if request.device == "cpu" and request.gpus:
        # A rehearsal: as many trials at once as the GPUs asked for would run.
        at_once = math.floor(request.gpus / _gpus_per_trial(request))
        return {
            "num_cpus": max(num_cpus, at_once * resources.cpus_per_trial),
            "num_gpus": request.gpus,
        }
    return {"num_cpus": num_cpus}


def _gpus_per_trial(request: SearchRequest) -> float:
    wanted = request.space.resources.gpus_per_trial
    if request.gpus:
        return wanted or 1.0
    none_here = not request.cluster and not torch.cuda.is_available()
    return 0.0 if request.gpus == 0 or request.device == "cpu" or none_here else wanted


def _max_concurrent(request: SearchRequest) -> int:
    """How many trials fit at once; Tune starts them one by one unless it is told."""
    available = ray.cluster_resources()
    at_once = available.get("CPU", 1) / request.space.resources.cpus_per_trial
    gpus_per_trial = _gpus_per_trial(request)
    if gpus_per_trial:
        gpus = min(available.get("GPU", 0), request.gpus or math.inf)
        at_once = min(at_once, gpus / gpus_per_trial)
    return max(1, int(at_once + 1e-9))


def _check_reachable(request: SearchRequest) -> None:
    """Refuses what cannot be met before anything is read: too few GPUs here, no cluster there."""
    found = torch.cuda.device_count()
    if not request.cluster and request.device == "auto" and (request.gpus or 0) > found:
        raise UserError(
            f"{request.gpus} GPUs asked for, but this machine has {found}; lower --gpus, connect "
            "to a cluster with --address, or rehearse the schedule on the CPU with --device cpu"
        )
    host, _, port = (request.cluster or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            raise _no_cluster(request) from error


def _no_cluster(request: SearchRequest) -> UserError:
    return UserError(
        f"no Ray cluster answers at {request.cluster}; start one, correct --address, or leave it "
        "out to use this machine"
    )


def _check_cluster(request: SearchRequest) -> None:
    available = ray.cluster_resources()
    wanted = {"CPU": request.space.resources.cpus_per_trial, "GPU": _gpus_per_trial(request)}
    wanted["GPU"] = max(wanted["GPU"], request.gpus or 0)
    for kind, amount in wanted.items():
        if amount > available.get(kind, 0):
            raise UserError(
                f"the search needs {amount:g} {kind}s, but Ray has {available.get(kind, 0):g}; "
                "lower --gpus or the space's resources, or add nodes"
            )
