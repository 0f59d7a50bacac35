"""`dfsc-tune search`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dfsc_tune.cli.data_folder import data_folder, data_name
from dfsc_tune.cli.runs import print_summaries
from dfsc_tune.cli.shared import (
    DataOption,
    DeviceOption,
    JsonOption,
    ResultsOption,
    RunNameOption,
    SameDataOption,
    SameTeachersOption,
    SeedOption,
    check_device,
    run_name,
    talk,
)
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.search.tuner import Outcome

ALL = "all"

SpaceOption = Annotated[
    str | None,
    typer.Option(
        help="A search space: a YAML file or a name such as smoke, cpu, margin, default. "
        "If left out: default with a GPU, cpu without."
    ),
]
GpusOption = Annotated[int | None, typer.Option(help="GPUs to use; all if left out.", min=0)]
GpusPerTrialOption = Annotated[
    float | None, typer.Option(help="A fraction lets trials share a GPU.", min=0.0)
]
TrialsPerGpuOption = Annotated[
    str | None, typer.Option(help="How many share a GPU; auto: as many as pay when measured.")
]
SameGpusOption = Annotated[int | None, typer.Option(help="GPUs to use; as before if left out.")]
SameAddressOption = Annotated[
    str | None,
    typer.Option(help="A Ray cluster, or local for this machine; as before if left out."),
]
SameDeviceOption = Annotated[str | None, typer.Option(help="auto or cpu; as before if left out.")]
TrialsOption = Annotated[int | None, typer.Option(help="Trials of each category.", min=1)]
WaitOption = Annotated[
    float,
    typer.Option(help="Minutes that an autoscaling cluster may take to bring --gpus.", min=0.0),
]
OBJECTIVE_HELP = (
    "holdout: half of the labelled images; synthetic: anomalies made from good images; oracle: the "
    "whole test set, as the paper. If left out: holdout where labels allow it, else synthetic."
)
ObjectiveOption = Annotated[str | None, typer.Option(help=OBJECTIVE_HELP)]


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
    teacher: Annotated[
        str | None, typer.Option(help="A weights file, a name from `teacher list`, or random.")
    ] = None,
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
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; this machine if left out.")
    ] = None,
    wait_for_gpus: WaitOption = 0.0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Find the best DFSC settings of one or more categories."""
    console = talk()
    check_device(device)
    categories = asked_categories(category, data)
    folder = data_folder(data, categories, console)
    from dfsc_tune.results import find_run
    from dfsc_tune.search.remote_run import working_folder
    from dfsc_tune.search.request import SearchRequest
    from dfsc_tune.search.tuner import run_search
    from dfsc_tune.storage.object_store import Store, is_remote

    store = results if is_remote(results) else None
    own = working_folder(Store(store)) if store else Path(results)
    request = SearchRequest(
        categories=tuple(categories),
        data=folder,
        data_name=data_name(data),
        space=asked_space(
            space or default_space(gpus, address, device, console),
            budget={"num_trials": trials},
            objective={"name": objective, "metric": metric},
            resources={"gpus_per_trial": gpus_per_trial},
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
        device=check_device(device),
    )
    _print_outcome(run_search(request, console), console, json)


def resume(
    run: Annotated[str, typer.Argument(help="A run's name, folder or address.")],
    trials: Annotated[
        int | None, typer.Option(help="Trials of each category, if more than before.", min=1)
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
    from dfsc_tune.results import find_run, read_settings, resume_command
    from dfsc_tune.search.remote_run import take_over
    from dfsc_tune.storage.object_store import Store, is_remote

    console = talk()
    folder = take_over(Store(run), console.print) if is_remote(run) else find_run(results, run)
    settings = read_settings(folder)
    if settings.continued_by != "resume":
        raise UserError(
            f"`resume` would leave the run in {folder} without what it is for; go on with it by "
            f"`{resume_command(folder)}`"
        )
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


def asked_categories(asked: list[str], data: str | None) -> list[str]:
    """The categories named, none twice; all there are for none, and for "all".

    In data with a category of that very name, "all" is that one.
    """
    if asked and ALL not in asked:
        return list(dict.fromkeys(asked))
    there = _every_category(data)
    if not asked or ALL not in there:
        return there
    note = f"note: a category is called '{ALL}', so that one is meant; name each of the others"
    typer.echo(note, err=True)
    return list(dict.fromkeys(asked))


def _every_category(data: str | None) -> list[str]:
    if data is None:
        from dfsc_tune.data.builtin import CATEGORIES

        return list(CATEGORIES)
    from dfsc_tune.data.layout import find_categories
    from dfsc_tune.data.remote import remote_categories
    from dfsc_tune.storage.object_store import Store, is_remote

    return list(remote_categories(Store(data)) if is_remote(data) else find_categories(Path(data)))


def default_space(gpus: int | None, address: str | None, device: str, console: Console) -> str:
    """The search space for where trials will run; says which."""
    on_gpu = bool(gpus) if gpus is not None else _has_gpus(address)
    name = "default" if device == "auto" and on_gpu else "cpu"
    console.print(f"search space: {name} (choose another with --space)")
    return name


def _has_gpus(address: str | None) -> bool:
    """Whether this machine has GPUs, or a cluster that is named may have."""
    import torch

    from dfsc_tune.search.request import cluster_of

    return cluster_of(address) is not None or torch.cuda.is_available()


def asked_space(name: str, *, teacher: str | None, **overrides: dict[str, Any]) -> Any:
    """The search space with the command line's wishes on top, checked as a whole."""
    from dfsc_tune.settings import validate
    from dfsc_tune.spaces.space import SearchSpace, load_space

    tree = load_space(name).model_dump()
    for group, values in overrides.items():
        tree[group] |= {key: value for key, value in values.items() if value is not None}
    if teacher is not None:
        tree["fixed"].setdefault("model", {})["teacher"] = teacher
    return validate(SearchSpace, tree, source="command line")


def asked_trials_per_gpu(text: str | None, gpus_per_trial: float | None) -> Any:
    """How many trials share a GPU: a number, 'auto', or None if the space says it."""
    if text is not None and gpus_per_trial is not None:
        raise UserError("give --trials-per-gpu or --gpus-per-trial, not both")
    if text is None or text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--trials-per-gpu is a number from 1 on or 'auto', not '{text}'")
    return int(text)


def _run_name(categories: list[str]) -> str:
    return run_name(categories[0] if len(categories) == 1 else f"{len(categories)}_categories")
