"""Waits for a cluster's autoscaler to start the GPUs that a search requests."""

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
def requested_gpus(request: SearchRequest, console: Console) -> Iterator[None]:
    """Requests the search's GPUs from the cluster, and waits for them before the block runs.

    The wait is limited; `check_cluster` reports GPUs that are still missing. Ray keeps requested
    machines, idle or not, until the request changes. The request made here, or by
    `cluster up --gpus`, is therefore withdrawn once trials run (`WithdrawsRequest`), or if the
    block fails; then idle machines end as the cluster's settings say.
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


class WithdrawsRequest(Callback):
    """Withdraws the request for GPUs once trials hold their machines."""

    def __init__(self, request: SearchRequest) -> None:
        self._is_requested = _may_wait(request)

    def on_trial_start(self, *args: Any, **info: Any) -> None:
        """Withdraws the request at the first start; waiting trials then keep the other machines."""
        if self._is_requested:
            request_resources(bundles=[])
            self._is_requested = False


def _may_wait(request: SearchRequest) -> bool:
    return bool(request.cluster and request.wait_minutes)


def _wait(wanted: int, seconds: float, console: Console) -> None:
    deadline = time.monotonic() + seconds
    with console.status("") as shown:
        last = -1
        while (there := _num_gpus()) < wanted and time.monotonic() < deadline:
            # Repeated, because another search on the cluster may have withdrawn it.
            request_resources(bundles=[{"GPU": 1}] * wanted)
            text = f"waiting for GPUs: {there} of {wanted} are there"
            shown.update(f"{text} …")
            if there != last and not console.is_terminal:
                console.print(text)
            last = there
            time.sleep(_POLL_SECONDS)


def _num_gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))
