"""Runs a search: reads the data, starts Ray, lets Tune run the trials, finalizes the run."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import StorageError, UserError, first_line
from dfsc_tune.models.teacher_files import random_teacher_warning
from dfsc_tune.results import (
    CHECKPOINTS,
    SETTINGS,
    DatasetRecord,
    RunSettings,
    create_run,
    removed_on_error,
    resume_command,
    write_settings,
)
from dfsc_tune.search.autoscaling import requested_gpus
from dfsc_tune.search.controller import Controller
from dfsc_tune.search.events import BEGAN
from dfsc_tune.search.finalize import finalize
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.live import LiveView
from dfsc_tune.search.packing import with_packing
from dfsc_tune.search.remote_run import (
    check_name,
    mirrored_to_store,
    with_stored_checkpoints,
)
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resources import driver_device, gpus_per_trial, on_gpu
from dfsc_tune.search.searcher import StudySearcher
from dfsc_tune.search.session import check_cluster, check_reachable, ray_session
from dfsc_tune.search.study import CategoryStudy
from dfsc_tune.search.tune import BrokenOffError, run_trials
from dfsc_tune.search.warm_start import with_warm_start
from dfsc_tune.settings import spelled_out
from dfsc_tune.spaces.asha import Asha
from dfsc_tune.storage.names import path_below
from dfsc_tune.storage.removal import remove_below
from dfsc_tune.training.machine import describe_machine
from dfsc_tune.training.prepare import CategoryData, prepare_category, with_chosen_objective

JOURNAL = "study.journal"


@dataclass(frozen=True)
class Outcome:
    """The end of a search: its folder, counts, and signal."""

    folder: Path
    num_expected: int
    num_ended: int
    num_failed: int
    interrupted_by: signal.Signals | None = None


def run_search(request: SearchRequest, console: Console) -> Outcome:
    """Searches the categories and leaves the run's folder.

    Args:
        request: the request.
        console: for progress; results go to files.

    Raises:
        UserError: the request cannot be met, and nothing is left behind; or the search broke off or
            a category could not be finalized, and the results so far are in the run's folder.
    """
    check_reachable(request)
    check_name(request)
    folder = create_run(request.results, request.name)
    with ExitStack() as session:
        ledger = session.enter_context(closing(Ledger(folder)))
        with removed_on_error(folder):
            bases = {category: _base_config(request, category) for category in request.categories}
            data = read_data(request, bases, console)
            if unused := [x for x in request.space.categories if x not in request.categories]:
                console.print(
                    f"note: the space also has settings for {', '.join(unused)}, not searched"
                )
            request = with_warm_start(request, data, console)
            request = with_packing(request, bases.values(), data.values(), console)
            session.enter_context(ray_session(request))
            session.enter_context(requested_gpus(request, console))
            check_cluster(request)
            settings = run_settings(request, bases, data)
            write_settings(folder, settings)
            ledger.append({"event": BEGAN, "settings": settings.digest})
            on_end = session.enter_context(mirrored_to_store(request, folder))
            controller = replayed_controller(request, bases, folder, ledger, on_end)
        return finish_search(request, controller, data, folder, console)


def replayed_controller(
    request: SearchRequest,
    bases: Mapping[str, TrialConfig],
    folder: Path,
    ledger: Ledger,
    on_end: Callable[[str, str], None] | None = None,
) -> Controller:
    """Makes the controller of a run's search, in the state that its ledger records."""
    # Optuna's journal serves Optuna's tools only; it is made again from the ledger.
    if (folder / JOURNAL).is_dir():
        raise UserError(f"{folder / JOURNAL} is a folder, and the search needs its name: move it")
    remove_below(folder, JOURNAL)
    path_below(folder, f"{CHECKPOINTS}/any")
    studies = {category: _study(request, category, folder) for category in bases}
    return Controller(
        folder,
        ledger,
        StudySearcher(studies, bases),
        Asha(request.space.budget),
        gpus_per_trial=gpus_per_trial(request),
        deadline_seconds=request.space.resources.deadline_seconds,
        on_end=on_end,
    )


def finish_search(
    request: SearchRequest,
    controller: Controller,
    data: Mapping[str, CategoryData],
    folder: Path,
    console: Console,
) -> Outcome:
    """Runs the trials that are left of a search, and finalizes the run.

    Args:
        request: as for `run_search`.
        controller: the controller of that search.
        data: the data of each category.
        folder: the run.
        console: for progress.

    Raises:
        UserError: as `run_search` does.
    """
    why: str | None = "interrupted"
    try:
        _run_and_finalize(request, controller, data, folder, console)
        if not isinstance(controller.stopped, signal.Signals):
            why = None
    except KeyboardInterrupt as interrupt:
        raise type(interrupt)(f"interrupted; go on: {resume_command(folder)}") from interrupt
    except Exception as error:
        why = first_line(error)
        raise
    finally:
        controller.ended(why)
    return outcome(folder, controller)


def _run_and_finalize(
    request: SearchRequest,
    controller: Controller,
    data: Mapping[str, CategoryData],
    folder: Path,
    console: Console,
) -> None:
    searched = {x: request.space.for_category(x).parameters for x in request.categories}
    view = LiveView(controller, searched, console)
    try:
        if not controller.is_finished:
            run_trials(
                request,
                folder,
                data,
                controller,
                view,
                functools.partial(_give_up, folder, controller, view),
            )
    finally:
        view.close()
        try:
            controller.close()
        except Exception as error:
            # A failing disk ends the search, but must not hide an earlier reason.
            if isinstance(error, StorageError | OSError):
                controller.stop(error)
            elif not isinstance(controller.stopped, StorageError | OSError):
                raise
    _warn_of_devices(request, controller, console)
    why = controller.stopped
    if why is None or why == signal.SIGINT or isinstance(why, BrokenOffError):
        with console.status("scoring the best models …"):
            finalize(
                folder,
                data,
                controller.tables.configs,
                with_stored_checkpoints(request, controller.checkpoint_dir),
                driver_device(request),
                only_scores=request.continued_by == "confirm",
            )
        controller.finalized()
    if isinstance(why, Exception | str):
        raise _explained(why, folder)


def outcome(folder: Path, controller: Controller) -> Outcome:
    """Returns the outcome of a run's search."""
    states = [row["state"] for row in controller.tables.trials.values()]
    return Outcome(
        folder=folder,
        num_expected=sum(controller.num_expected.values()),
        num_ended=controller.num_ended,
        num_failed=states.count("failed"),
        interrupted_by=controller.stopped
        if isinstance(controller.stopped, signal.Signals)
        else None,
    )


def _explained(why: str | Exception, folder: Path) -> UserError:
    """Makes the error for an early end, with the way out."""
    go_on = f"continue with `{resume_command(folder)}`"
    if isinstance(why, str):
        return UserError(f"the search was stopped: {why}; mend it and start a new run, or {go_on}")
    if isinstance(why, BrokenOffError):
        return UserError(
            f"the search broke off ({why}); its results so far are in {folder}; {go_on}"
        )
    if not (folder / SETTINGS).exists():
        return UserError(f"the search was stopped: {why}; put the run back to continue it")
    return UserError(
        f"the search was stopped: {why}; nothing finished is lost: check the disk, then {go_on}"
    )


def _give_up(folder: Path, controller: Controller, view: LiveView, loss: str) -> None:
    """Closes the books of a search that can do no more, for Ray is lost, and says how to go on."""
    controller.stop(why := BrokenOffError(loss))
    view.close()
    # A disk that fails is no reason to say less.
    with suppress(StorageError, OSError):
        controller.close()
    controller.ended(loss)
    Console(stderr=True, soft_wrap=True, markup=False).print(f"error: {_explained(why, folder)}")


def _warn_of_devices(request: SearchRequest, controller: Controller, console: Console) -> None:
    rows = controller.tables.trials.values()
    if on_gpu(request) and any(row.get("device") == "cpu" for row in rows):
        console.print(
            "warning: trials were given GPUs, found no CUDA there and ran on the CPU",
            style="yellow",
        )


def _study(request: SearchRequest, category: str, folder: Path) -> CategoryStudy:
    return CategoryStudy(
        request.space.for_category(category),
        name=f"{request.name}/{category}",
        num_trials=request.space.budget.num_trials,
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
    return with_chosen_objective(base.with_absolute_paths(), request.data)


def read_data(
    request: SearchRequest, bases: Mapping[str, TrialConfig], console: Console
) -> dict[str, CategoryData]:
    """Reads the categories, and prints notes on them."""
    data = {}
    for category, base in bases.items():
        with console.status(escape(f"reading {category} …")):
            data[category] = prepare_category(base, request.data, driver_device(request))
        for note in data[category].notes:
            console.print(f"note: {category}: {note}")
    # Categories usually share their model, so each warning is printed once.
    for warning in sorted({random_teacher_warning(base.model) or "" for base in bases.values()}):
        if warning:
            console.print(f"warning: {warning}", style="yellow")
    return data


def run_settings(
    request: SearchRequest, bases: Mapping[str, TrialConfig], data: Mapping[str, CategoryData]
) -> RunSettings:
    """Returns the content of a new search's `run.yaml`, with this machine."""
    space = spelled_out(request.space)
    return RunSettings(
        name=request.name,
        categories=request.categories,
        data=request.data_name,
        seed=request.seed,
        objective=space.objective,
        searched={x: tuple(space.for_category(x).parameters) for x in request.categories},
        gpus=request.gpus,
        gpus_per_trial=gpus_per_trial(request),
        device=request.device,
        address=request.cluster,
        store=request.store,
        continued_by=request.continued_by,
        continued_with=request.continued_with,
        space=space,
        base_configs={name: spelled_out(base) for name, base in bases.items()},
        datasets={name: DatasetRecord(**read.summary()) for name, read in data.items()},
        **describe_machine(),
    )
