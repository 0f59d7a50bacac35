"""The number of trials that share a GPU: as requested, or the fastest by measurement."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from rich.console import Console

from dfsc_tune.bench.packing import measure_packing
from dfsc_tune.bench.request import BenchRequest
from dfsc_tune.bench.sharing import best_count
from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.search.request import AUTO, SearchRequest
from dfsc_tune.search.resources import driver_device
from dfsc_tune.training.prepare import CategoryData

_COUNTS = (1, 2, 4, 8)
_SECONDS = 5.0


def with_packing(
    request: SearchRequest,
    bases: Iterable[TrialConfig],
    data: Iterable[CategoryData],
    console: Console,
) -> SearchRequest:
    """Returns the request with its space's `gpus_per_trial` set by `trials_per_gpu`.

    Raises:
        UserError: it must be measured, and this machine has no GPU.
    """
    if request.trials_per_gpu is None:
        return request
    if request.trials_per_gpu != AUTO:
        return _sharing(request, int(request.trials_per_gpu))
    device = driver_device(request)
    if device == "cpu":
        raise UserError(
            "--trials-per-gpu auto measures on a GPU of this machine, and there is none in use; "
            "give a number"
        )
    # The first category's model stands for all, because they usually share it.
    bench = BenchRequest(next(iter(bases)).model, device, rounds=1, seconds_per_round=_SECONDS)
    with console.status("measuring how many trials share a GPU best …") as status:
        found = measure_packing(
            bench,
            _COUNTS,
            os.cpu_count() or 1,
            lambda text: status.update(f"{text} …"),
            console.print,
            data_bytes=max(one.trial.num_bytes for one in data),
        )
    best = best_count({x.num_trials: x.steps_per_second for x in found})
    rates = ", ".join(f"{x.num_trials}: {x.steps_per_second:.0f}" for x in found)
    console.print(
        f"{best} trials share a GPU (steps a second of all together, by number of trials: {rates})",
    )
    return _sharing(request, best)


def _sharing(request: SearchRequest, num_trials: int) -> SearchRequest:
    resources = {"gpus_per_trial": 1 / num_trials}
    space = request.space.with_overrides("command line", resources=resources)
    return replace(request, space=space)
