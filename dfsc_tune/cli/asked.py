"""What the options of a search ask for: categories, a space, a share of a GPU, a name."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from dfsc_tune.errors import UserError

if TYPE_CHECKING:
    from dfsc_tune.spaces.space import SearchSpace

ALL = "all"


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


def asked_trials_per_gpu(text: str | None, gpus_per_trial: float | None) -> Any:
    """How many trials share a GPU: a number, 'auto', or None if the space says it."""
    if text is not None and gpus_per_trial is not None:
        raise UserError("give --trials-per-gpu or --gpus-per-trial, not both")
    if text is None or text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--trials-per-gpu is a number from 1 on or 'auto', not '{text}'")
    return int(text)


def run_name(subject: str) -> str:
    """A run's name where the user gives none: what it is about and when it began."""
    return f"{subject}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
