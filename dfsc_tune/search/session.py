"""Ray for the time of a search: joined or started, and whether it has what the search needs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from dfsc_tune.errors import UserError, first_line
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resources import gpus_per_trial, local_resources
from dfsc_tune.storage.places import scratch_folder
from dfsc_tune.storage.token import MODE, TOKEN, new_token

_CONNECT_SECONDS = 5
_PROBE_SECONDS = 60
_CONTROL_SERVER = "gcs_server"
_SERVERS = (_CONTROL_SERVER, "raylet")
_TO_ALL = {signal.SIGTERM, signal.SIGHUP}
_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}


@contextmanager
def ray_session(request: SearchRequest) -> Iterator[None]:
    """Ray, connected or started, for the time of the block."""
    # Ray prints what its nodes complain of, and stdout is for results.
    with (
        _joined(request) if request.cluster else _started(request),
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
    ):
        yield


@contextmanager
def _joined(request: SearchRequest) -> Iterator[None]:
    """A Ray cluster that is there."""
    try:
        with _own_sigterm():
            ray.init(address=request.cluster, **_QUIET)
    except (OSError, ValueError, RuntimeError) as error:
        raise _no_cluster(request) from error
    try:
        _check_actors_start(request)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _started(request: SearchRequest) -> Iterator[None]:
    """A Ray of our own on this machine, none of whose processes is left behind."""
    me = psutil.Process()
    before, started = set(me.children()), set[psutil.Process]()
    with scratch_folder(for_sockets=True) as scratch, _for_this_process_alone():
        try:
            try:
                # Ray opens its folder to everyone: it lies in one that is closed.
                _start(request, scratch / "ray")
            finally:
                started = set(me.children()) - before
            yield
        finally:
            _end(started)


@contextmanager
def _for_this_process_alone() -> Iterator[None]:
    """Has a Ray that starts within the block listen on the loopback, and ask for a new token.

    By default it would listen on every interface, and keep its token in a file that all can read.
    """
    before = {name: os.environ.get(name) for name in (MODE, TOKEN, _CLUSTER)}
    os.environ |= {TOKEN: new_token(), _CLUSTER: "0"}
    # Ray sets the mode itself where none is named, also when it was told another at its import.
    os.environ.pop(MODE, None)
    with_others, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = with_others
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        AuthenticationTokenLoader.instance().reset_cache()


def _end(started: Iterable[psutil.Process]) -> None:
    """Ends the Ray that these children of this process are, and all that they started.

    Deaf to SIGTERM (see `_start`), each would make `ray.shutdown` wait a second for it. So they are
    killed before, all but Ray's control server, of which this process takes leave: without it, that
    would take five seconds.
    """
    processes = [x for child in started for x in _with_descendants(child)]
    _kill(x for x in processes if not _is_control_server(x))
    ray.shutdown()
    _kill(processes)


def _is_control_server(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() == _CONTROL_SERVER
    return False


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _start(request: SearchRequest, folder: Path) -> None:
    """Starts Ray in a folder, with SIGTERM and SIGHUP blocked in all its processes.

    These are often sent to all processes of a group, container or terminal at once (`timeout`,
    systemd, ssh). If Ray's obeyed, this one would be ended by their loss before it has closed its
    books.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _TO_ALL)
    try:
        with _own_sigterm():
            # "local", or Ray would join whatever cluster somebody started on this machine.
            ray.init(
                "local",
                include_dashboard=False,
                _temp_dir=str(folder),
                **local_resources(request),
                **_QUIET,
            )
    except Exception as error:
        raise _not_started(error, folder) from error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_ALL)


def _not_started(error: Exception, folder: Path) -> UserError:
    """Why Ray did not start: Ray itself says no more than that its processes did not answer."""
    text = f"Ray did not start on this machine ({first_line(error)}"
    for log in sorted(folder.glob("session_*/logs/*.err")):
        if log.stem in _SERVERS and (said := _last_line(log)):
            return UserError(f"{text}; its {log.stem} said: {said})")
    if "timed out" in str(error):
        return UserError(f"{text}); if the machine is very busy, wait and try again")
    return UserError(f"{text})")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps what this process does at a SIGTERM: Ray makes it exit on the spot with status 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if error.code != signal.SIGTERM:
            raise
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _with_descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


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
