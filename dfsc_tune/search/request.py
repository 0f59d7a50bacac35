"""What a user asks a search for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dfsc_tune.search.space import SearchSpace

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
    name: str
    seed: int = 0
    gpus: int | None = None
    """GPUs to use; none means all there are."""
    trials_per_gpu: int | Literal["auto"] | None = None
    """How many share a GPU; `auto` means measured; none means the space's `gpus_per_trial`."""
    address: str | None = None
    """A Ray cluster; none means one of our own on this machine."""
    device: Literal["auto", "cpu"] = "auto"
    """`cpu` keeps trials off GPUs; GPUs asked for are then only counted, to rehearse a schedule."""

    @property
    def cluster(self) -> str | None:
        """The Ray cluster to join: the one given, else the one the environment names."""
        return self.address or os.environ.get("RAY_ADDRESS")
