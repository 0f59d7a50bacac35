"""Resumes a run with the same settings and data, which are checked, and maybe more trials."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dfsc_tune.errors import UserError
from dfsc_tune.results import (
    LEDGER,
    RunSettings,
    load,
    read_settings,
    remove_damaged_tables,
    resume_command,
    space_of_run,
    write_settings,
)
from dfsc_tune.results.settings import ContinuedBy, Device, Resumption
from dfsc_tune.search.autoscaling import requested_gpus
from dfsc_tune.search.events import BEGAN, RESUMED
from dfsc_tune.search.finalize import files_are_whole
from dfsc_tune.search.ledger import Ledger
from dfsc_tune.search.provenance import base_config, check_same, with_teachers
from dfsc_tune.search.remote_run import drop_unknown_checkpoints, mirrored_to_store
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.run import Outcome, finish_search, outcome, read_data, replayed_controller
from dfsc_tune.search.salvage import check_not_emptied, check_tail
from dfsc_tune.search.session import check_cluster, check_reachable, ray_session
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.storage.atomic import remove_unfinished
from dfsc_tune.training.machine import describe_machine


def resume_search(
    folder: Path,
    data: Path,
    console: Console,
    *,
    data_name: str | None,
    teachers: Sequence[str] = (),
    num_trials: int | None = None,
    gpus: int | None = None,
    address: str | None = None,
    device: Device | None = None,
    wait_minutes: float = 0.0,
    by: ContinuedBy = "resume",
) -> Outcome:
    """Continues a run's search; finalizes a finished one if files are missing or damaged.

    Args:
        folder: the run.
        data: the folder that holds its categories.
        console: for progress.
        data_name: that folder, as in `SearchRequest`; it may lie elsewhere than before.
        teachers: those of the run that lie elsewhere than before, as files or by name.
        num_trials: of each category, if there are to be more than before.
        gpus: as in `SearchRequest`; the run's own if None, as are `address` and `device`.
        address: see there; "local" for this machine.
        device: see there.
        wait_minutes: see there.
        by: the command that goes on with the run; it must be the one that began it.

    Raises:
        UserError: the run cannot be resumed, with nothing changed; or as `run_search` does.
    """
    settings = read_settings(folder)
    if settings.continued_by != by:
        raise UserError(
            f"`{by}` would leave the run in {folder} without its purpose; continue it with "
            f"`{resume_command(folder)}`"
        )
    if not (folder / LEDGER).exists():
        raise UserError(f"the run in {folder} was not made by a search that can be resumed")
    request = request_of(folder, data, data_name, gpus=gpus, address=address, device=device)
    request = replace(
        request, space=_with_trials(request.space, num_trials), wait_minutes=wait_minutes
    )
    moved = with_teachers(settings, teachers, folder).model_copy(update={"data": data_name})
    with ExitStack() as session:
        ledger = session.enter_context(closing(Ledger(folder)))
        _check_settings(ledger, settings, folder)
        on_end = session.enter_context(mirrored_to_store(request, folder))
        remove_damaged_tables(folder, settings.categories)
        run = replace(load(folder), settings=moved)
        bases = {x: base_config(run, x) for x in moved.base_configs}
        controller = replayed_controller(request, bases, folder, ledger, on_end)
        steps = {trial: row["step"] for trial, row in controller.tables.trials.items()}
        if request.store is None:
            check_tail(run, steps)
        else:
            drop_unknown_checkpoints(request, steps)
        is_whole = controller.results_are_written and files_are_whole(
            folder, controller.tables.best
        )
        if controller.is_finished and is_whole:
            console.print(
                f"the run {folder.name} is finished: {controller.num_ended} trials, all finalized; "
                "--trials gives it more",
            )
            return outcome(folder, controller)
        check_reachable(request)
        read = read_data(request, bases, console)
        for category, data_now in read.items():
            check_same(run, category, data_now.fingerprint, data_now.trial.teacher)
        if not controller.is_finished:
            session.enter_context(ray_session(request))
            session.enter_context(requested_gpus(request, console))
            check_cluster(request)
            ledger.append({"event": RESUMED})
        _write_settings(folder, moved, request)
        remove_unfinished(folder)
        console.print(
            f"resuming {folder.name}: {controller.num_ended} of "
            f"{sum(controller.num_expected.values())} trials have ended, "
            f"{controller.num_open} go on",
        )
        return finish_search(request, controller, read, folder, console)


def request_of(
    folder: Path,
    data: Path,
    data_name: str | None,
    *,
    gpus: int | None = None,
    address: str | None = None,
    device: Device | None = None,
) -> SearchRequest:
    """Makes the request for a run that is resumed.

    Args:
        folder: the run.
        data: the folder that holds its categories.
        data_name: that folder, as in `SearchRequest`.
        gpus: as in `SearchRequest`; the run's own if None, as are `address` and `device`.
        address: see there; "local" for this machine.
        device: see there.
    """
    settings = read_settings(folder)
    return SearchRequest(
        categories=settings.categories,
        data=data,
        data_name=data_name,
        space=space_of_run(settings, folder),
        results=folder.parent,
        name=folder.name,
        seed=settings.seed,
        gpus=settings.gpus if gpus is None else gpus,
        address=address or settings.address,
        store=settings.store,
        continued_by=settings.continued_by,
        continued_with=settings.continued_with,
        device=device or settings.device,
    )


def _with_trials(space: SearchSpace, num_trials: int | None) -> SearchSpace:
    before = space.budget.num_trials
    if num_trials is None:
        return space
    if num_trials < before:
        raise UserError(
            f"--trials {num_trials} is fewer than the run's {before}; a run can only be given more"
        )
    return space.with_overrides("command line", budget={"num_trials": num_trials})


def _check_settings(ledger: Ledger, settings: RunSettings, folder: Path) -> None:
    """Refuses a run whose settings are not those that it began with."""
    if not ledger.events:
        check_not_emptied(folder)
        ledger.append({"event": BEGAN, "settings": settings.digest})
    elif ledger.events[0].get("settings") != settings.digest:
        raise UserError(
            f"the settings in {folder}/run.yaml are not those that the run began with; restore "
            "them, or start a new run"
        )


def _write_settings(folder: Path, settings: RunSettings, request: SearchRequest) -> None:
    """Notes in `run.yaml` how many trials there are to be now, and what goes on with them."""
    now = Resumption(gpus=request.gpus, address=request.cluster, **describe_machine())
    resumed = (*settings.resumed, now)
    update = {"space": request.space, "resumed": resumed}
    write_settings(folder, settings.model_copy(update=update))
