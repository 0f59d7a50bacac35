"""The devices of a search, and the share of each of its trials."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch

from dfsc_tune.search.request import SearchRequest


def on_gpu(request: SearchRequest) -> bool:
    """True if trials run on GPUs, and these are not only counted."""
    return gpus_per_trial(request) > 0 and request.device == "auto"


def driver_device(request: SearchRequest) -> str:
    """Returns the device on which this process runs the teacher and scores models."""
    on_gpu = request.device == "auto" and request.gpus != 0 and torch.cuda.is_available()
    return "cuda" if on_gpu else "cpu"


def local_resources(request: SearchRequest) -> dict[str, Any]:
    """Returns the resources that a Ray started on this machine is given."""
    resources = request.space.resources
    num_cpus = max(os.cpu_count() or 1, resources.cpus_per_trial)
    if request.device == "cpu" and request.gpus:
        # A rehearsal: as many trials at once as the GPUs asked for would run.
        at_once = math.floor(request.gpus / gpus_per_trial(request))
        return {
            "num_cpus": max(num_cpus, at_once * resources.cpus_per_trial),
            "num_gpus": request.gpus,
        }
    return {"num_cpus": num_cpus}


def gpus_per_trial(request: SearchRequest) -> float:
    """The share of a GPU that each trial gets; 0 where trials run on CPUs."""
    wanted = request.space.resources.gpus_per_trial
    if request.gpus:
        return wanted or 1.0
    none_here = not request.cluster and not torch.cuda.is_available()
    return 0.0 if request.gpus == 0 or request.device == "cpu" or none_here else wanted


def max_concurrent(request: SearchRequest, available: Mapping[str, float]) -> int:
    """Counts the trials that fit into Ray at once; by default, Tune starts one by one."""
    at_once = available.get("CPU", 1) / request.space.resources.cpus_per_trial
    if share := gpus_per_trial(request):
        gpus = min(available.get("GPU", 0), request.gpus or math.inf)
        at_once = min(at_once, gpus / share)
    return max(1, int(at_once + 1e-9))
