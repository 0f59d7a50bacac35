"""Reads the options of a search: categories, data, a space, a share of a GPU, a name."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from dfsc_tune.cli.printing import progress_bar
from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.results.settings import Device
    from dfsc_tune.search.request import TrialsPerGpu
    from dfsc_tune.spaces.space import SearchSpace

ALL = "all"


def asked_categories(asked: list[str], data: str | None) -> list[str]:
    """The categories named, none twice; all there are for none, and for "all".

    In data with a category of that very name, "all" is that one.
    """
    if asked and ALL not in asked:
        return list(dict.fromkeys(asked))
    from dfsc_tune.data.sources import category_names

    there = category_names(data)
    if not asked or ALL not in there:
        return there
    note = f"note: a category is called '{ALL}', so that one is meant; name each of the others"
    typer.echo(note, err=True)
    return list(dict.fromkeys(asked))


def data_folder(data: str | None, categories: Sequence[str], console: Console) -> Path:
    """The folder of the data asked for; a bar shows what is fetched or rendered first."""
    from dfsc_tune.data.sources import find_data

    return find_data(data, categories, partial(progress_bar, console=console), console.print)


def space_name(
    asked: str | None, gpus: int | None, address: str | None, device: Device, console: Console
) -> str:
    """The search space asked for, else the one for where trials will run, which is said."""
    if asked:
        return asked
    from dfsc_tune.search.request import default_space

    name = default_space(gpus, address, device)
    console.print(f"search space: {name} (choose another with --space)")
    return name


def asked_space(
    name: str,
    *,
    num_trials: int | None = None,
    objective: str | None = None,
    metric: str | None = None,
    gpus_per_trial: float | None = None,
    teacher: str | None = None,
) -> SearchSpace:
    """The search space with the command line's wishes on top, checked as a whole."""
    from dfsc_tune.spaces.space import load_space

    wishes: dict[str, dict[str, Any]] = {
        "budget": {"num_trials": num_trials},
        "objective": {"name": objective, "metric": metric},
        "resources": {"gpus_per_trial": gpus_per_trial},
    }
    groups = {
        group: {name: value for name, value in values.items() if value is not None}
        for group, values in wishes.items()
    }
    if teacher is not None:
        groups["fixed"] = {"model": {"teacher": teacher}}
    return load_space(name).with_overrides("command line", **groups)


def asked_trials_per_gpu(text: str | None, gpus_per_trial: float | None) -> TrialsPerGpu:
    """Returns the number of trials that share a GPU, without --gpus-per-trial."""
    from dfsc_tune.search.request import parse_trials_per_gpu

    if text is not None and gpus_per_trial is not None:
        raise UserError("give --trials-per-gpu or --gpus-per-trial, not both")
    return parse_trials_per_gpu(text)


def run_name(subject: str) -> str:
    """A run's name where the user gives none: what it is about and when it began."""
    return f"{subject}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
