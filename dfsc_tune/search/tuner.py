"""Runs a search: reads the data, starts Ray, lets Tune run the trials, publishes what was found."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from rich.console import Console

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.models.teacher_files import random_teacher_warning
from dfsc_tune.prepare import CategoryData, prepare_category
from dfsc_tune.publish import publish
from dfsc_tune.results import create_run, describe_machine, removed_on_error, write_settings
from dfsc_tune.search.live import LiveView
from dfsc_tune.search.packed import with_packing
from dfsc_tune.search.recorder import Recorder
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.scheduler import CategoryAsha
from dfsc_tune.search.searcher import StudySearcher
from dfsc_tune.search.session import (
    check_cluster,
    check_reachable,
    driver_device,
    gpus_per_trial,
    max_concurrent,
    on_gpu,
    ray_session,
)
from dfsc_tune.search.study import CategoryStudy
from dfsc_tune.search.trainable import tune_trial

_MAX_FAILURES = 2
JOURNAL = "study.journal"


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
        UserError: the request cannot be met, and nothing is left behind; or the search broke off or
            a category could not be published, and what was found is in the run's folder.
    """
    check_reachable(request)
    bases = {category: _base_config(request, category) for category in request.categories}
    folder = create_run(request.results, request.name)
    with ExitStack() as session:
        with removed_on_error(folder):
            data = _prepare(request, bases, console)
            request = with_packing(request, bases.values(), data.values(), console)
            session.enter_context(ray_session(request))
            check_cluster(request)
            write_settings(folder, _settings(request, data))
            studies = {category: _study(request, category, folder) for category in bases}
        searcher = StudySearcher(studies, bases)
        recorder = Recorder(folder)
        expected = {category: study.num_expected for category, study in studies.items()}
        view = LiveView(recorder, expected, list(request.space.parameters), console)
        session.callback(view.close)
        broken_off = _fit(request, folder, data, searcher, [recorder, view])
        searcher.close()
    rows = list(recorder.tables.trials.values())
    if on_gpu(request) and any(row.get("device") == "cpu" for row in rows):
        console.print(
            "warning: trials were given GPUs, found no CUDA there and ran on the CPU",
            style="yellow",
            highlight=False,
        )
    with console.status("scoring the best models …"):
        publish(folder, data, recorder.tables.configs, recorder.checkpoints, driver_device(request))
    if broken_off is not None:
        raise UserError(
            f"the search broke off ({_one_line(broken_off)}); what its trials found is in {folder}"
        ) from broken_off
    states = [row["state"] for row in rows]
    num_ended = len(states) - states.count("interrupted")
    return Outcome(
        folder=folder,
        num_expected=sum(expected.values()),
        num_ended=num_ended,
        num_failed=states.count("failed"),
        interrupted=num_ended < sum(expected.values()),
    )


def _fit(
    request: SearchRequest,
    folder: Path,
    data: Mapping[str, CategoryData],
    searcher: StudySearcher,
    callbacks: list[tune.Callback],
) -> Exception | None:
    """Runs the trials; what stopped Tune before its time, if anything did."""
    resources = request.space.resources
    shared = {category: ray.put(read.trial) for category, read in data.items()}
    trainable = functools.partial(
        tune_trial,
        data=shared,
        num_threads=resources.cpus_per_trial,
        device="cuda" if on_gpu(request) else "cpu",
    )
    tuner = tune.Tuner(
        tune.with_resources(
            trainable, {"cpu": resources.cpus_per_trial, "gpu": gpus_per_trial(request)}
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=CategoryAsha(request.space.budget),
            num_samples=-1,
            max_concurrent_trials=max_concurrent(request),
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
    try:
        tuner.fit()
    except Exception as error:
        # Whatever went wrong with the machinery, what trials have found is still to be published.
        return error
    return None


def _one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _study(request: SearchRequest, category: str, folder: Path) -> CategoryStudy:
    return CategoryStudy(
        request.space.for_category(category),
        name=f"{request.name}/{category}",
        num_trials=request.space.budget.num_trials,
        sampler=request.space.sampler,
        seed=request.seed,
        journal=folder / JOURNAL,
    )


def _base_config(request: SearchRequest, category: str) -> TrialConfig:
    budget = request.space.budget
    base = request.space.for_category(category).base_config(
        category,
        data=request.data_name,
        objective=request.space.objective.model_dump(),
        train={"num_steps": budget.num_steps, "report_interval": budget.report_interval},
        seed=request.seed,
    )
    return base.with_absolute_paths()


def _prepare(
    request: SearchRequest, bases: Mapping[str, TrialConfig], console: Console
) -> dict[str, CategoryData]:
    data = {}
    for category, base in bases.items():
        with console.status(f"reading {category} …"):
            data[category] = prepare_category(base, request.data, driver_device(request))
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
        "gpus_per_trial": gpus_per_trial(request),
        "device": request.device,
        "address": request.cluster,
        "space": space.model_dump(mode="json"),
        "datasets": {name: read.summary() for name, read in data.items()},
        **describe_machine(),
    }
