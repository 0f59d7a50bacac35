"""Waits for a cluster's autoscaler to bring the GPUs that a search asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.tune import Callback
from rich.console import Console

from dfsc_tune.search.request import SearchRequest

_POLL_SECONDS = 2.0


@contextmanager
def gpus_brought(request: SearchRequest, console: Console) -> Iterator[None]:
    """Has the cluster start the GPUs asked for; they are there in the block, or time was over.

    What a search needs and does not find is said by `check_cluster`. Ray keeps what is asked for
    until something else is, idle or not: so what was asked for here, or by `cluster up --gpus`, is
    taken back once trials run (`TakesBack`), or if the block fails. From then on machines that
    idle go as the cluster's settings say.
    """
    if not _may_wait(request):
        yield
        return
    try:
        _wait(request.gpus or 0, 60 * request.wait_minutes, console)
        yield
    except BaseException:
        request_resources(bundles=[])
        raise


class TakesBack(Callback):
    """Takes back what was asked for of the autoscaler once trials hold their machines."""

    def __init__(self, request: SearchRequest) -> None:
        self._is_asked_for = _may_wait(request)

    def on_trial_start(self, *args: Any, **info: Any) -> None:
        """At the first trial's start the others wait for their places, which keeps these too."""
        if self._is_asked_for:
            request_resources(bundles=[])
            self._is_asked_for = False


def _may_wait(request: SearchRequest) -> bool:
    return bool(request.cluster and request.wait_minutes)


def _wait(wanted: int, seconds: float, console: Console) -> None:
    deadline = time.monotonic() + seconds
    with console.status("") as shown:
        last = -1
        while (there := _num_gpus()) < wanted and time.monotonic() < deadline:
            # Each time, for another search on the cluster may have taken it back.
            request_resources(bundles=[{"GPU": 1}] * wanted)
            text = f"waiting for GPUs: {there} of {wanted} are there"
            shown.update(f"{text} …")
            if there != last and not console.is_terminal:
                console.print(text)
            last = there
            time.sleep(_POLL_SECONDS)


def _num_gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))
