"""A Ray of this process's own, on this machine: nobody else's, and none of it is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from dfsc_tune.errors import UserError, first_line
from dfsc_tune.storage.places import scratch_folder
from dfsc_tune.storage.token import MODE, TOKEN, new_token

_CONTROL_SERVER = "gcs_server"
_SERVERS = (_CONTROL_SERVER, "raylet")
_TO_ALL = {signal.SIGTERM, signal.SIGHUP}
_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_END_SECONDS = 3
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}


@contextmanager
def own_ray(resources: Mapping[str, Any]) -> Iterator[None]:
    """Ray, started for the time of the block.

    Args:
        resources: what it is to offer, as `ray.init` takes it.

    Raises:
        UserError: it does not start.
    """
    me = psutil.Process()
    before, started = set(me.children()), set[psutil.Process]()
    with scratch_folder(for_sockets=True) as scratch, _for_this_process_alone():
        try:
            try:
                # Ray opens its folder to everyone: it lies in one that is closed.
                _start(resources, scratch / "ray")
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
    # What still dies may still write into the folder that is removed next.
    psutil.wait_procs(processes, timeout=_END_SECONDS)


def _is_control_server(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() == _CONTROL_SERVER
    return False


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _start(resources: Mapping[str, Any], folder: Path) -> None:
    """Starts Ray in a folder, with SIGTERM and SIGHUP blocked in all its processes.

    These are often sent to all processes of a group, container or terminal at once (`timeout`,
    systemd, ssh). If Ray's obeyed, this one would be ended by their loss before it has closed its
    books.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _TO_ALL)
    try:
        with own_sigterm():
            # "local", or Ray would join whatever cluster somebody started on this machine.
            ray.init(
                "local",
                include_dashboard=False,
                _temp_dir=str(folder),
                **resources,
                **QUIET,
            )
    except Exception as error:
        raise _not_started(error, folder) from error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_ALL)


def _not_started(error: Exception, folder: Path) -> UserError:
    """Finds why Ray did not start; Ray says only that its processes did not answer."""
    text = f"Ray did not start on this machine ({first_line(error)}"
    # A server that runs is late, not broken.
    running = {
        found["name"]
        for found in (x.info for x in psutil.process_iter(["name", "ppid", "status"]))
        if found["ppid"] == os.getpid() and found["status"] != psutil.STATUS_ZOMBIE
    }
    for server in _SERVERS:
        for log in folder.glob(f"session_2*/logs/{server}.err"):
            if server not in running and (said := _last_line(log)):
                return UserError(f"{text}; its {server} said: {said})")
    if "timed out" in str(error):
        return UserError(f"{text}); if the machine is very busy, wait and try again")
    return UserError(f"{text})")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@contextmanager
def own_sigterm() -> Iterator[None]:
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
