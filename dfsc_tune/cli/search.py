"""`dfsc-tune search`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dfsc_tune.cli.asked import (
    asked_categories,
    asked_space,
    asked_trials_per_gpu,
    data_folder,
    run_name,
    space_name,
)
from dfsc_tune.cli.options import (
    AddressOption,
    DataOption,
    DeviceOption,
    GpusOption,
    GpusPerTrialOption,
    JsonOption,
    ObjectiveOption,
    ResultsOption,
    RunNameOption,
    SameAddressOption,
    SameDataOption,
    SameDeviceOption,
    SameGpusOption,
    SameTeachersOption,
    SeedOption,
    SpaceOption,
    TeacherOption,
    TrialsOption,
    TrialsPerGpuOption,
    WaitOption,
    check_device,
)
from dfsc_tune.cli.printing import talk
from dfsc_tune.cli.runs import print_summaries
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.search.run import Outcome


def search(
    category: Annotated[
        list[str], typer.Option(help="What to search; may be repeated; 'all' for every category.")
    ],
    data: DataOption = None,
    space: SpaceOption = None,
    gpus: GpusOption = None,
    gpus_per_trial: GpusPerTrialOption = None,
    trials_per_gpu: TrialsPerGpuOption = None,
    trials: TrialsOption = None,
    objective: ObjectiveOption = None,
    metric: Annotated[
        str | None, typer.Option(help="Image AUROC to maximise: mean, logical or structural.")
    ] = None,
    teacher: TeacherOption = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(
            help="An earlier run, to start with what was best on its most similar categories; may "
            "be repeated."
        ),
    ] = None,
    name: RunNameOption = None,
    results: Annotated[
        str,
        typer.Option(
            help="Folder that holds the runs, or its address (s3://, gs://, az://), where the run "
            "is then kept while it goes on."
        ),
    ] = "results",
    seed: SeedOption = 0,
    address: AddressOption = None,
    wait_for_gpus: WaitOption = 0.0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Find the best DFSC settings of one or more categories."""
    console = talk()
    where = check_device(device)
    categories = asked_categories(category, data)
    folder = data_folder(data, categories, console)
    from dfsc_tune.data.sources import data_name
    from dfsc_tune.results import find_run
    from dfsc_tune.search.remote_run import working_folder
    from dfsc_tune.search.request import SearchRequest
    from dfsc_tune.search.run import run_search
    from dfsc_tune.storage.object_store import Store, is_remote

    store = results if is_remote(results) else None
    own = working_folder(Store(store)) if store else Path(results)
    request = SearchRequest(
        categories=tuple(categories),
        data=folder,
        data_name=data_name(data),
        space=asked_space(
            space_name(space, gpus, address, where, console),
            num_trials=trials,
            objective=objective,
            metric=metric,
            gpus_per_trial=gpus_per_trial,
            teacher=teacher,
        ),
        results=own,
        store=store,
        warm_start=tuple(find_run(own, run) for run in warm_start or ()),
        name=name or _run_name(categories),
        seed=seed,
        gpus=gpus,
        trials_per_gpu=asked_trials_per_gpu(trials_per_gpu, gpus_per_trial),
        address=address,
        wait_minutes=wait_for_gpus,
        device=where,
    )
    _print_outcome(run_search(request, console), console, json)


def resume(
    run: Annotated[str, typer.Argument(help="A run's name, folder or address.")],
    trials: Annotated[
        int | None, typer.Option(help="Trials of each category, if more than before.", min=1)
    ] = None,
    keep_lines: Annotated[
        int | None,
        typer.Option(
            help="Go on from so many first lines of a damaged ledger; what no longer fits is moved "
            "to RUN/damaged-1.",
            min=1,
        ),
    ] = None,
    data: SameDataOption = None,
    teacher: SameTeachersOption = None,
    gpus: SameGpusOption = None,
    address: SameAddressOption = None,
    device: SameDeviceOption = None,
    wait_for_gpus: WaitOption = 0.0,
    results: ResultsOption = Path("results"),
    json: JsonOption = False,
) -> None:
    """Go on with a search that was interrupted or died, or give it more trials."""
    from dfsc_tune.data.sources import data_name
    from dfsc_tune.results import find_run, read_settings
    from dfsc_tune.search.remote_run import take_over
    from dfsc_tune.search.salvage import keep_lines as cut_ledger
    from dfsc_tune.storage.object_store import Store, is_remote

    console = talk()
    folder = take_over(Store(run), console.print) if is_remote(run) else find_run(results, run)
    settings = read_settings(folder)
    if keep_lines is not None:
        aside = cut_ledger(folder, keep_lines)
        console.print(f"kept {keep_lines} lines of the ledger; what no longer fits is in {aside}")
    name = data_name(data) or settings.data
    data_now = data_folder(name, settings.categories, console)
    from dfsc_tune.search.resume import resume_search

    outcome = resume_search(
        folder,
        data_now,
        console,
        data_name=name,
        teachers=teacher or (),
        num_trials=trials,
        gpus=gpus,
        address=address,
        device=check_device(device) if device is not None else None,
        wait_minutes=wait_for_gpus,
    )
    _print_outcome(outcome, console, json)


def _print_outcome(outcome: Outcome, console: Console, json: bool) -> None:
    from dfsc_tune.results import load, resume_command, stored_at
    from dfsc_tune.search.ledger import interruptions

    if outcome.interrupted_by:
        console.print(
            f"interrupted: {outcome.num_ended} of {outcome.num_expected} trials ended; go on: "
            f"{resume_command(outcome.folder)}",
        )
    found = print_summaries(outcome.folder, json)
    if (store := stored_at(outcome.folder)) is not None:
        console.print(f"kept in {store}; copy it here: dfsc-tune fetch {store}")
    if summary := str(interruptions(outcome.folder)):
        console.print(summary)
    if outcome.num_failed:
        console.print(f"failed trials: {outcome.num_failed}; trials.parquet says why", style="red")
    if outcome.interrupted_by:
        raise typer.Exit(128 + outcome.interrupted_by)
    categories = load(outcome.folder).settings.categories
    if missing := [category for category in categories if category not in found]:
        raise UserError(
            f"no trial of {', '.join(missing)} reached the full budget; see "
            f"{outcome.folder}/trials.parquet"
        )


def _run_name(categories: list[str]) -> str:
    return run_name(categories[0] if len(categories) == 1 else f"{len(categories)}_categories")
