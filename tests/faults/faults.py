"""The faults: what dies or breaks at a random moment of a session."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.search import ON_LOOPBACK, Session

_CHECKPOINT = "checkpoints/*/trial.pt"
_NODE = {"num_cpus": 1, "num_gpus": 1}
_POLL_SECONDS = 0.002
_PATIENCE_SECONDS = 120.0


def kill_driver(session: Session, moment: float) -> bool:
    """SIGKILL for the process that leads the search."""
    time.sleep(moment)
    session.kill(with_children=False)
    return True


def kill_machine(session: Session, moment: float) -> bool:
    """SIGKILL for all processes at once."""
    time.sleep(moment)
    session.kill(with_children=True)
    return True


def tear_checkpoint(session: Session, moment: float) -> bool:
    """As if the power failed: all processes gone, the newest checkpoint half written."""
    kill_machine(session, moment)
    found = sorted(session.folder.glob(_CHECKPOINT), key=lambda path: path.stat().st_mtime)
    unfinished = [path for path in found if path.with_name("trial.previous.pt").exists()]
    for path in unfinished[-1:]:
        os.truncate(path, path.stat().st_size // 2)
    return True


def kill_trial(session: Session, moment: float) -> bool:
    """SIGKILL for the process of a trial; the search goes on."""
    time.sleep(moment)
    return _within_patience(session, session.kill_trial)


def kill_writer(session: Session, moment: float) -> bool:
    """SIGKILL for the process of a trial while it writes a checkpoint; the search goes on."""
    time.sleep(moment)

    def kill() -> bool:
        return any(session.folder.glob("checkpoints/*/.*.part")) and session.kill_trial()

    return _within_patience(session, kill)


LOSE_NODE = "lose_node"
_LOCAL = {
    fault.__name__: fault
    for fault in (kill_driver, kill_machine, tear_checkpoint, kill_trial, kill_writer)
}
FAULTS = (*_LOCAL, LOSE_NODE)


def disturb(work: Path, run: str, name: str, moment: float) -> bool:
    """Runs one session of a run with one fault in it; whether the fault came to pass.

    Args:
        work: the folder made by `prepare`.
        run: the run's name.
        name: one of `FAULTS`.
        moment: seconds from the session's first event to the fault.
    """
    if name == LOSE_NODE:
        return _lose_node(work, run, moment)
    session = Session(work, run)
    return _let_happen(session, lambda: _LOCAL[name](session, moment))


def _let_happen(session: Session, fault: Callable[[], bool]) -> bool:
    happened = session.wait_until_it_works() and fault()
    status = session.wait()
    if session.found_no_ray:
        return False
    assert status in (0, -signal.SIGKILL), f"the session ended with status {status}"
    return happened


def _lose_node(work: Path, run: str, moment: float) -> bool:
    """A node of a Ray cluster vanishes with the trial on it, and another takes its place."""
    with contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(_cluster())
            node = cluster.add_node(**_NODE)
        except Exception as error:
            # Ray has no class of its own for this, as in a session: the machine is too busy.
            if "timed out during startup" not in str(error):
                raise
            return False
        session = Session(work, run, address=cluster.address)

        def lose() -> bool:
            time.sleep(moment)
            if session.process.poll() is not None:
                return False
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(**_NODE)
            return True

        return _let_happen(session, lose)


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    # Ray reads these when it is imported.
    os.environ.update(ON_LOOPBACK)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def _within_patience(session: Session, act: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while session.process.poll() is None and time.monotonic() < deadline:
        if act():
            return True
        time.sleep(_POLL_SECONDS)
    return False
