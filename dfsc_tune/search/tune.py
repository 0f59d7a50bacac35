"""Has Ray Tune run a search's trials, each with its share of the machines."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune

from dfsc_tune.search.adapters import (
    ControllerCallback,
    ControllerScheduler,
    ControllerSearcher,
    ControllerStopper,
)
from dfsc_tune.search.autoscaling import WithdrawsRequest
from dfsc_tune.search.controller import Controller
from dfsc_tune.search.live import LiveView
from dfsc_tune.search.lost_ray import noticing_loss
from dfsc_tune.search.remote_run import trial_checkpoints
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resources import max_concurrent, on_gpu
from dfsc_tune.search.signals import stopping_on_signals
from dfsc_tune.search.trainable import tune_trial
from dfsc_tune.storage.places import scratch_folder
from dfsc_tune.training.prepare import CategoryData


class BrokenOffError(Exception):
    """An exception of the machinery that ended the search."""


def run_trials(
    request: SearchRequest,
    folder: Path,
    data: Mapping[str, CategoryData],
    controller: Controller,
    view: LiveView,
    give_up: Callable[[str], None],
) -> None:
    """Runs the trials; the controller says afterwards what stopped them early, if anything.

    Where Ray is lost, `give_up` is told what is gone, and the process ends.
    """
    # Our own messages replace Tune's about broken trials and ended runs.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    controller.capacity = max_concurrent(request, ray.cluster_resources())
    with scratch_folder() as scratch:
        tuner = tune.Tuner(
            tune.with_resources(_trainable(request, folder, data), _resources(request)),
            tune_config=tune.TuneConfig(
                search_alg=ControllerSearcher(controller),
                scheduler=ControllerScheduler(controller),
                num_samples=-1,
                max_concurrent_trials=controller.capacity,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                stop=ControllerStopper(controller),
                callbacks=[ControllerCallback(controller), WithdrawsRequest(request), view],
                verbose=0,
            ),
        )
        watched = noticing_loss(request.cluster is None, give_up)
        with stopping_on_signals(controller.stop), watched:
            try:
                tuner.fit()
            except Exception as error:
                # Whatever went wrong, the results so far are still finalized.
                broken_off = BrokenOffError(_one_line(error))
                broken_off.__cause__ = error
                controller.stop(broken_off)


def _trainable(request: SearchRequest, folder: Path, data: Mapping[str, CategoryData]) -> Any:
    return functools.partial(
        tune_trial,
        data={category: ray.put(read.trial) for category, read in data.items()},
        checkpoints=trial_checkpoints(request, folder),
        num_threads=request.space.resources.cpus_per_trial,
        device="cuda" if on_gpu(request) else "cpu",
    )


def _resources(request: SearchRequest) -> Any:
    """Returns a trial's resources; its share of a GPU grows after an out-of-memory error."""
    num_cpus = request.space.resources.cpus_per_trial
    return lambda config: tune.PlacementGroupFactory([{"CPU": num_cpus, "GPU": config["gpus"]}])


def _one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
