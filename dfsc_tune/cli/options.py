"""The options and arguments that several commands take, and checks of what they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from dfsc_tune.errors import UserError

_MODEL_FILES = ("model.yaml", "model.safetensors")
# Of these, folders stand for all within them; a model's folder in `models` is looked at first.
_RUN_FILES = (
    "run.yaml",
    "ledger.jsonl",
    "study.journal",
    "trials.parquet",
    "reports.parquet",
    "scores.parquet",
    "confirmed.parquet",
    "best",
    "checkpoints",
)


def check_name(name: str | None) -> str | None:
    """Refuses a run's name that is a path: it would not be found among the runs."""
    from dfsc_tune.storage.names import checked_name

    try:
        return name and checked_name(name)
    except ValueError as error:
        raise UserError(f"--name is the name of a folder in --results: '{name}' {error}") from error


RunArgument = Annotated[str, typer.Argument(help="A run's name or folder.")]
MODEL_HELP = "A model folder, such as results/RUN/models/CATEGORY."

DataOption = Annotated[
    str | None,
    typer.Option(
        help="Folder that holds the categories, or its address (s3://, gs://, az://); the built-in "
        "data if left out."
    ),
]
SameDataOption = Annotated[
    str | None,
    typer.Option(
        help="Where the run's data lie now, a folder or an address; as before if left out."
    ),
]
SameTeachersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        help="Where the run's teacher lies now, a weights file or a name; may be repeated; as "
        "before if left out.",
    ),
]
ResultsOption = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


RunNameOption = Annotated[
    str | None, typer.Option("--name", help="The run's name.", callback=check_name)
]
SeedOption = Annotated[int, typer.Option(help="Decides all randomness.", min=0)]
DeviceOption = Annotated[str, typer.Option(help="auto (a GPU if there is one) or cpu.")]
CategoriesOption = Annotated[
    list[str] | None,
    typer.Option(help="What to search; may be repeated; 'all' for every category."),
]
TeacherOption = Annotated[
    str | None, typer.Option(help="A weights file, a name from `teacher list`, or random.")
]
AddressOption = Annotated[str | None, typer.Option(help="A Ray cluster; this machine if left out.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads; all if left out.", min=1)]
FetchedOption = Annotated[Path, typer.Option("--to", help="Folder that holds the runs here.")]
SpaceOption = Annotated[
    str | None,
    typer.Option(
        help="A search space: a YAML file or a name such as smoke, cpu, margin, default. "
        "If left out: default with a GPU or on a cluster, cpu without."
    ),
]
GpusOption = Annotated[
    int | None,
    typer.Option(
        help="GPUs to use; if left out: all, where the space gives trials a share of one.", min=0
    ),
]
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


def numbers(text: str, option: str) -> tuple[int, ...]:
    """The whole numbers of an option such as 1,2,4."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise UserError(f"{option} takes numbers such as 1,2,4, not '{text}'") from error


def check_output(path: Path | None, option: str) -> None:
    """Refuses an output file that would replace a file that a run or a model consists of."""
    if path is None:
        return
    # Not Path.resolve, which raises if a link leads back to itself.
    target = Path(os.path.realpath(path))
    for folder in target.parents:
        name = target.relative_to(folder).parts[0]
        is_own = (folder / "model.yaml").is_file() and name in _MODEL_FILES
        is_own |= (folder / "run.yaml").is_file() and name in _RUN_FILES
        if is_own:
            raise UserError(
                f"{option} would replace {path}, one of the files of {folder}; choose another name"
            )
        if (folder / "model.yaml").is_file():
            return


def check_device(device: str) -> Literal["auto", "cpu"]:
    """Refuses a device that is not auto or cpu."""
    if device == "auto":
        return "auto"
    if device == "cpu":
        return "cpu"
    raise UserError(f"--device is 'auto' or 'cpu', not '{device}'")


def torch_device(device: str) -> str:
    """The device that `auto` or `cpu` means on this machine."""
    import torch

    return "cuda" if check_device(device) == "auto" and torch.cuda.is_available() else "cpu"
