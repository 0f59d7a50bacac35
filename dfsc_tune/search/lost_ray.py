"""Notices that Ray is lost, before Ray itself ends this process without a word of ours.

The main thread is of no use then: it waits within Ray's own code, where no signal reaches it.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

_LOOK_SECONDS = 1.0
_CONNECT_SECONDS = 3.0
# Ray ends this process 15 s after the loss of its raylet, and 61 s after that of a control server.
_GONE_SECONDS = 2.0
_RESTART_SECONDS = 40.0
"""For so long a cluster's control server may be away: some are started again."""
_AWAY = {errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
_PACKAGE = __name__.partition(".")[0]
_STATUS = 2


@contextmanager
def noticing_loss(is_own: bool, give_up: Callable[[str], None]) -> Iterator[None]:
    """Ends this process once Ray's control server or this node's raylet is gone within the block.

    Args:
        is_own: whether Ray is this process's own, so that nobody starts it again.
        give_up: called before, in another thread, with what is gone.
    """
    ended = threading.Event()
    block = threading.get_ident()

    def watch() -> None:
        servers, away = _servers(is_own), dict[str, float]()
        while not ended.wait(_LOOK_SECONDS):
            for name, (address, patience) in servers.items():
                if _answers(address):
                    away.pop(name, None)
                    continue
                seconds = time.monotonic() - away.setdefault(name, time.monotonic())
                if seconds >= patience and not _is_at_our_work(block):
                    try:
                        give_up(f"{name} is gone")
                    finally:
                        os._exit(_STATUS)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _servers(is_own: bool) -> dict[str, tuple[tuple[str, int], float]]:
    """The address of each process, and the longest time without an answer."""
    here = ray.get_runtime_context()
    host, _, port = here.gcs_address.rpartition(":")
    patience = _GONE_SECONDS if is_own else _RESTART_SECONDS
    servers = {"Ray's control server": ((host, int(port)), patience)}
    for node in ray.nodes():
        if node["NodeID"] == here.get_node_id():
            address = (node["NodeManagerAddress"], node["NodeManagerPort"])
            servers["Ray's raylet on this machine"] = (address, _GONE_SECONDS)
    return servers


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, _CONNECT_SECONDS).close()
    except TimeoutError:
        return False
    except OSError as error:
        # Too many open files, say, tell nothing.
        return error.errno not in _AWAY
    return True


def _is_at_our_work(thread: int) -> bool:
    """True if a thread runs our code as a callback of Ray, such as writing an event."""
    frame = sys._current_frames().get(thread)
    names = []
    while frame is not None:
        names.append(str(frame.f_globals.get("__name__")).partition(".")[0])
        frame = frame.f_back
    # What has called Ray is ours, too.
    return _PACKAGE in names and "ray" in names[names.index(_PACKAGE) :]
