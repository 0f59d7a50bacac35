"""What a user asks a search for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dfsc_tune.config import TrialConfig
from dfsc_tune.spaces.space import SearchSpace

Device = Literal["auto", "cpu"]

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class SearchRequest:
    """One search, as asked for."""

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
    trials_per_gpu: int | Literal["auto"] | None = None
    """How many share a GPU; `auto` means measured; none means the space's `gpus_per_trial`."""
    address: str | None = None
    """A Ray cluster, or `local` for one of our own on this machine; see `cluster_of`."""
    warm_start: tuple[Path, ...] = ()
    """Earlier runs whose best settings of similar categories are tried first."""
    wait_minutes: float = 0.0
    """For how long a cluster may take to bring the GPUs asked for."""
    store: str | None = None
    """The results folder in an object store, where the run is kept while it goes on."""
    go_on_by: str | None = None
    """The command that goes on with the run, where that is not `resume`; it then also chooses what
    lies in `best/` and `models/`."""
    device: Device = "auto"
    """`cpu` keeps trials off GPUs; GPUs asked for are then only counted, to rehearse a schedule."""

    @property
    def cluster(self) -> str | None:
        """The Ray cluster to join, see `cluster_of`."""
        return cluster_of(self.address)

    def digest(self, bases: Mapping[str, TrialConfig]) -> str:
        """The sha256 of what decides a search's trials, but for how many and where they run.

        Args:
            bases: each category's config before any parameter is chosen.
        """
        space = self.space.model_dump(mode="json")
        del space["budget"]["num_trials"], space["resources"]
        configs = {category: base.model_dump(mode="json") for category, base in bases.items()}
        text = json.dumps([space, self.seed, configs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def cluster_of(address: str | None) -> str | None:
    """The Ray cluster to join: the one given, else the one the environment names.

    None means one of our own on this machine, which the address `local` asks for.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address
