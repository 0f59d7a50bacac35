"""The request for a search."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dfsc_tune.errors import UserError
from dfsc_tune.results.settings import ContinuedBy, Device
from dfsc_tune.spaces.space import SearchSpace

AUTO: Literal["auto"] = "auto"
TrialsPerGpu = int | Literal["auto"] | None
"""Trials that share a GPU; `auto` measures it; None means the space's `gpus_per_trial`."""


@dataclass(frozen=True)
class SearchRequest:
    """The request for one search."""

    categories: tuple[str, ...]
    data: Path
    data_name: str | None
    """The data folder as the configs should name it; none for the built-in data."""
    space: SearchSpace
    results: Path
    """Of this machine; where `store` is given, its working copy."""
    name: str
    seed: int = 0
    gpus: int | None = None
    """GPUs to use; none means all there are."""
    trials_per_gpu: TrialsPerGpu = None
    address: str | None = None
    """A Ray cluster, or `local` for one of our own on this machine; see `cluster_of`."""
    warm_start: tuple[Path, ...] = ()
    """Earlier runs whose best settings of similar categories are tried first."""
    wait_minutes: float = 0.0
    """Longest time that an autoscaling cluster may take to start the requested GPUs."""
    store: str | None = None
    """The results folder in an object store, to which the run is copied while it goes on."""
    continued_by: ContinuedBy = "resume"
    """The command that continues the run; `confirm` also chooses the contents of `best/` and
    `models/`."""
    continued_with: tuple[str, ...] = ()
    """Its arguments, if it is not `resume`."""
    device: Device = "auto"
    """`cpu` keeps trials off GPUs; requested GPUs are then only counted, to rehearse a schedule."""

    @property
    def cluster(self) -> str | None:
        """The Ray cluster to join, see `cluster_of`."""
        return cluster_of(self.address)


def cluster_of(address: str | None) -> str | None:
    """Returns the Ray cluster to join: the given one, else that of the environment.

    None means a private Ray on this machine, as does the address `local`.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def default_space(gpus: int | None, address: str | None, device: Device) -> str:
    """The name of the search space for where trials will run.

    Args:
        gpus: as in `SearchRequest`, as are the others.
        address: see there; a cluster that is named is taken to have GPUs.
        device: see there.
    """
    on_gpu = _may_have_gpus(address) if gpus is None else gpus > 0
    return "default" if device == "auto" and on_gpu else "cpu"


def _may_have_gpus(address: str | None) -> bool:
    # Only this needs torch, and a plan is made without it.
    import torch

    return cluster_of(address) is not None or torch.cuda.is_available()


def parse_trials_per_gpu(text: str | None) -> TrialsPerGpu:
    """Reads the number of trials that share a GPU from the text of an option.

    Raises:
        UserError: it is neither `auto` nor a number from 1 on.
    """
    if text is None:
        return None
    if text == AUTO:
        return AUTO
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--trials-per-gpu is a number from 1 on or 'auto', not '{text}'")
    return int(text)
