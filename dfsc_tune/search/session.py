"""Ray for the time of a search: joined or started, and whether it has what the search needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
import torch

from dfsc_tune.errors import UserError
from dfsc_tune.search.local_ray import QUIET, own_ray, own_sigterm
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resources import gpus_per_trial, local_resources

_CONNECT_SECONDS = 5
_PROBE_SECONDS = 60


@contextmanager
def ray_session(request: SearchRequest) -> Iterator[None]:
    """Ray, connected or started, for the time of the block."""
    # Ray prints what its nodes complain of, and stdout is for results.
    with (
        _joined(request) if request.cluster else own_ray(local_resources(request)),
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
    ):
        yield


@contextmanager
def _joined(request: SearchRequest) -> Iterator[None]:
    """A Ray cluster that is there."""
    try:
        with own_sigterm():
            ray.init(address=request.cluster, **QUIET)
    except (OSError, ValueError, RuntimeError) as error:
        raise _no_cluster(request) from error
    try:
        _check_actors_start(request)
        yield
    finally:
        ray.shutdown()


def check_reachable(request: SearchRequest) -> None:
    """Refuses what cannot be met before anything is read: too few GPUs here, no cluster there."""
    found = torch.cuda.device_count()
    if not request.cluster and request.device == "auto" and (request.gpus or 0) > found:
        raise UserError(
            f"{request.gpus} GPUs asked for, but this machine has {found}; lower --gpus, connect "
            "to a cluster with --address, or rehearse the schedule on the CPU with --device cpu"
        )
    if (request.cluster or "").startswith("ray://"):
        raise UserError(
            f"a search cannot run through Ray Client ({request.cluster}); run it on a node of the "
            "cluster with --address auto, or submit it there as a job"
        )
    host, _, port = (request.cluster or "").rpartition(":")
    if host and port.isdigit():
        try:
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            raise _no_cluster(request) from error


def _check_actors_start(request: SearchRequest) -> None:
    """Refuses a cluster that lets this process in but starts no actor for it.

    One without tokens is such, where this process offers one.
    """
    probe: Any = ray.remote(num_cpus=0)(_Probe)
    try:
        ray.get(probe.remote().answer.remote(), timeout=_PROBE_SECONDS)
    except ray.exceptions.RayError as error:
        raise UserError(
            f"the Ray cluster at {request.cluster} starts no processes for this one; if it uses no "
            "tokens, set RAY_AUTH_MODE=disabled, else see `ray status` on it"
        ) from error


class _Probe:
    def answer(self) -> None:
        """Answers."""


def _no_cluster(request: SearchRequest) -> UserError:
    return UserError(
        f"no Ray cluster answers at {request.cluster}, or it wants another token; start one, "
        "correct --address, put its token into ~/.ray/auth_token, or leave --address out"
    )


def check_cluster(request: SearchRequest) -> None:
    """Refuses a search that needs more than Ray has; Ray itself would wait for ever."""
    available = ray.cluster_resources()
    wanted = {"CPU": request.space.resources.cpus_per_trial, "GPU": gpus_per_trial(request)}
    wanted["GPU"] = max(wanted["GPU"], request.gpus or 0)
    for kind, amount in wanted.items():
        if amount > available.get(kind, 0):
            raise UserError(
                f"the search needs {amount:g} {kind}s, but Ray has {available.get(kind, 0):g}; "
                "lower --gpus, choose a --space that needs fewer, or add nodes"
            )
