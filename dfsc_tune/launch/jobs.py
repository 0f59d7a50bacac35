"""Jobs, searches that run on a cluster: submitting, following, stopping and fetching them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfsc_tune.errors import UserError, first_line
from dfsc_tune.launch.cluster_files import read_cluster_file
from dfsc_tune.storage.copies import copy_place
from dfsc_tune.storage.places import scratch_folder

_RUN, _COMMAND = "run", "command"
_DASHBOARD_PORT = 8265
_TUNNEL_SECONDS = 60.0
_STOP_SECONDS = 60.0
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class JobState:
    """A job of a cluster."""

    job_id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    command: str
    run: str | None
    """The place of its run: an address, or a path on the cluster."""
    message: str = ""

    @property
    def has_ended(self) -> bool:
        """True if nothing of it is running."""
        return self.status in _ENDED


@contextmanager
def connected(cluster: str) -> Iterator[Any]:
    """Connects to a cluster's jobs for the time of the block; gives Ray's client.

    Args:
        cluster: a cluster file, whose head is then reached through ssh; or a dashboard's address,
            such as http://127.0.0.1:8265.

    Raises:
        UserError: the cluster cannot be reached, or refuses this machine's token.
    """
    if cluster.startswith(("http://", "https://")):
        yield _client(cluster)
        return
    path = Path(cluster)
    read_cluster_file(path)
    with _tunnel(path) as address:
        yield _client(address)


def submit(client: Any, words: Sequence[str], name: str, *, wait: bool) -> JobState:
    """Submits a command of `dfsc-tune`.

    Args:
        client: from `connected`.
        words: the words of the command, without `dfsc-tune`.
        name: name of the run, if the command gives none.
        wait: whether the cluster starts GPU machines on demand.

    Raises:
        UserError: the command cannot be run on a cluster.
    """
    from dfsc_tune.launch.pack import pack

    with scratch_folder() as folder:
        job = pack(words, folder, name, wait=wait)
        with _explained("submit"):
            job_id = client.submit_job(
                entrypoint=job.command,
                runtime_env={"working_dir": str(folder)},
                metadata={_RUN: job.run, _COMMAND: " ".join(words)},
            )
    return JobState(job_id, "PENDING", " ".join(words), job.run)


def find_job(client: Any, job_id: str) -> JobState:
    """Returns a job in its present state.

    Raises:
        UserError: there is no such job; the error names those that exist.
    """
    jobs = {job.job_id: job for job in list_jobs(client)}
    if job_id not in jobs:
        raise UserError(f"no job '{job_id}'; jobs there: {', '.join(jobs) or 'none'}")
    return jobs[job_id]


def list_jobs(client: Any) -> list[JobState]:
    """Lists all submitted jobs of the cluster, oldest first."""
    with _explained("list"):
        found = client.list_jobs()
    submitted = sorted((x for x in found if x.submission_id), key=lambda x: x.start_time or 0)
    return [
        JobState(
            job_id=job.submission_id,
            status=str(job.status.value),
            command=job.metadata.get(_COMMAND, job.entrypoint),
            run=job.metadata.get(_RUN),
            message=job.message or "",
        )
        for job in submitted
    ]


def follow(client: Any, job_id: str, show: Callable[[str], None]) -> JobState:
    """Shows what a job prints until it ends; returns its final state."""

    async def tail() -> None:
        async for text in client.tail_job_logs(job_id):
            show(text)

    find_job(client, job_id)
    with _explained("follow"):
        asyncio.run(tail())
    return find_job(client, job_id)


def logs(client: Any, job_id: str) -> str:
    """Returns what a job has printed so far."""
    find_job(client, job_id)
    with _explained("read the logs of"):
        text: str = client.get_job_logs(job_id)
    return text


def stop(client: Any, job_id: str) -> JobState:
    """Stops a job and waits for its end; its run can be resumed."""
    if (state := find_job(client, job_id)).has_ended:
        return state
    with _explained("stop"):
        client.stop_job(job_id)
    deadline = time.monotonic() + _STOP_SECONDS
    while not (state := find_job(client, job_id)).has_ended:
        if time.monotonic() > deadline:
            raise UserError(
                f"the job {job_id} was told to stop and has not ended within "
                f"{_STOP_SECONDS:.0f} s; see `dfsc-tune job logs {job_id}`"
            )
        time.sleep(0.5)
    return state


def fetch_from_head(cluster: Path, path: str, results: Path) -> Path:
    """Copies a run from a cluster's disk to this machine through ssh, or updates the copy here.

    Raises:
        UserError: the folder of its name here is not a copy of it, or copying fails.
    """
    target = copy_place(results / Path(path).name, f"{path} of the cluster")
    command = ["rsync-down", str(cluster), f"{path}/", f"{target}/"]
    done = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *command], stdout=sys.stderr
    )
    if done.returncode:
        raise UserError(f"`ray {' '.join(command)}` failed with status {done.returncode}")
    return target


def _client(address: str) -> Any:
    # Ray's client prefers these to the address that it is given.
    overriding = {x: os.environ.pop(x, None) for x in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")}
    try:
        from ray.job_submission import JobSubmissionClient

        # It logs each connection that closes.
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
        with _explained("reach the jobs of"):
            return JobSubmissionClient(address)
    finally:
        os.environ.update({key: x for key, x in overriding.items() if x is not None})


@contextmanager
def _explained(verb: str) -> Iterator[None]:
    """Turns exceptions of Ray's client into one-sentence errors."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise UserError(
            "the cluster refuses this machine: put the cluster's token into ~/.ray/auth_token"
        ) from error
    except BrokenPipeError:
        # The reader of our output has gone, not the cluster.
        raise
    except OSError as error:
        # Ray's client passes on what requests and aiohttp raise.
        raise UserError(
            f"cannot {verb} the cluster: no dashboard answers; is it up, and the address right?"
        ) from error
    except RuntimeError as error:
        if re.search(r"""pip install ['"]ray\[default\]""", str(error)):
            raise UserError("jobs need further parts of Ray: pip install '.[cluster]'") from error
        raise UserError(f"cannot {verb} the job: {first_line(error)}") from error


@contextmanager
def _tunnel(path: Path) -> Iterator[str]:
    """Makes the dashboard of a cluster's head available at an address of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["dashboard", str(path), "--port", str(port), "--remote-port", str(_DASHBOARD_PORT)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + _TUNNEL_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(
                    f"the head of {path} cannot be reached through ssh; see `ray dashboard {path}`"
                )
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(process)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the launcher and the ssh that it started."""
    if process.poll() is None:
        os.killpg(process.pid, 15)
        process.wait()
