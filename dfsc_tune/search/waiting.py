"""Waits for a cluster's autoscaler to bring the GPUs that a search asks for."""

from __future__ import annotations

import time

import ray
from ray.autoscaler.sdk import request_resources
from rich.console import Console

from dfsc_tune.search.request import SearchRequest

_POLL_SECONDS = 2.0


def wait_for_gpus(request: SearchRequest, console: Console) -> None:
    """Has the cluster start the GPUs asked for, and returns when they are there or time is over.

    What a search needs and does not find is said by `check_cluster`. Once there, machines are kept
    by the trials on them: those that idle are given back as the cluster's settings say.
    """
    wanted = request.gpus or 0
    if not request.cluster or not request.wait_minutes or _num_gpus() >= wanted:
        return
    request_resources(bundles=[{"GPU": 1}] * wanted)
    deadline = time.monotonic() + 60 * request.wait_minutes
    try:
        with console.status("") as shown:
            last = -1
            while (there := _num_gpus()) < wanted and time.monotonic() < deadline:
                text = f"waiting for GPUs: {there} of {wanted} are there"
                shown.update(f"{text} …")
                if there != last and not console.is_terminal:
                    console.print(text)
                last = there
                time.sleep(_POLL_SECONDS)
    finally:
        request_resources(bundles=[])


def _num_gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))
