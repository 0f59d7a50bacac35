"""The life of a cluster, through Ray's launcher: bringing it up, its nodes, taking it down."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dfsc_tune.errors import UserError, first_line
from dfsc_tune.launch.cluster_files import check_cluster_file, read_cluster_file
from dfsc_tune.storage.documents import parse_json
from dfsc_tune.storage.token import ensure_token

_RAY = (sys.executable, "-m", "ray.scripts.scripts")
_REPORT = "python -m dfsc_tune.launch.node_report"
# Marks the report's line among the output of a login shell.
REPORT_MARK = "dfsc-tune nodes: "
_POLL_SECONDS = 15.0
_SSH_OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    # Ray's launcher accepts any host key; this accepts only a host's first.
    *("-o", "StrictHostKeyChecking=accept-new"),
)


@dataclass(frozen=True)
class Node:
    """A present or former node of a cluster."""

    host: str
    group: str
    """Its node type in the cluster file; empty if Ray does not know it."""
    alive: bool
    is_head: bool
    gpus: float
    gpus_used: float
    hours: float
    """Its time in the cluster, without its set-up."""


def bring_up(
    path: Path, gpus: int, wait_minutes: float, progress: Callable[[int, int], None]
) -> None:
    """Launches the cluster; with `gpus`, also starts GPU machines and waits for them.

    Args:
        path: the cluster file.
        gpus: number of GPUs to start now; with 0, machines start when trials wait for them.
        wait_minutes: longest time to wait for the GPUs.
        progress: called with the numbers of GPUs present and wanted.

    Raises:
        UserError: the file cannot be launched, the launch fails, or the GPUs do not arrive.
    """
    tree = check_cluster_file(path)
    ensure_token()
    _check_files(path, tree)
    _ray(tree, "up", str(path), "--yes", "--no-config-cache")
    if not gpus:
        return
    nodes = nodes_of(path, request_gpus=gpus)
    deadline = time.monotonic() + 60 * wait_minutes
    while (there := _num_gpus(nodes)) < gpus:
        progress(there, gpus)
        if time.monotonic() > deadline:
            raise UserError(
                f"{there} of {gpus} GPUs started within {wait_minutes:g} minutes; the cluster is "
                f"up and costs money: ask the provider with `ray exec {path} 'ray status -v'`, or "
                f"end the cluster with `dfsc-tune cluster down {path}`"
            )
        time.sleep(_POLL_SECONDS)
        nodes = nodes_of(path)
    progress(there, gpus)


def _check_files(path: Path, tree: Mapping[str, Any]) -> None:
    """Refuses to launch if a file to be copied to the nodes, or the ssh key, is missing."""
    key = tree.get("auth", {}).get("ssh_private_key")
    for name in [*tree["file_mounts"].values(), *([key] if key else [])]:
        if not Path(name).expanduser().exists():
            raise UserError(f"there is no {name}, which {path} names; correct {path}")


def nodes_of(path: Path, *, request_gpus: int | None = None) -> list[Node]:
    """Returns the present and former nodes of a cluster, as its head reports them.

    Args:
        path: the cluster file.
        request_gpus: number of GPUs that the autoscaler shall bring the cluster to.

    Raises:
        UserError: the head does not answer.
    """
    command = _REPORT if request_gpus is None else f"{_REPORT} {request_gpus}"
    answer = _ray(read_cluster_file(path), "exec", str(path), command, capture=True)
    for line in answer.splitlines():
        if REPORT_MARK in line:
            rows = parse_json(line.split(REPORT_MARK, 1)[1], f"what the head of {path} says")
            with suppress(ValidationError):
                return TypeAdapter(list[Node]).validate_python(rows)
    raise UserError(f"the head of {path} does not report its nodes; is dfsc-tune installed there?")


def take_down(path: Path) -> list[str]:
    """Ends a cluster.

    Returns:
        A sentence for everything that may still run; empty if nothing does.

    Raises:
        UserError: Ray's launcher fails, so the cluster may still be up.
    """
    tree = read_cluster_file(path)
    _ray(tree, "down", str(path), "--yes")
    if tree["provider"].get("type") == "local":
        return list(_left_on_hosts(tree))
    return list(_left_at_provider(tree))


def _left_at_provider(tree: Mapping[str, Any]) -> Iterator[str]:
    kind = tree["provider"]["type"]
    try:
        from ray.autoscaler._private.providers import _get_node_provider

        provider = _get_node_provider(dict(tree["provider"]), tree["cluster_name"])
        left = provider.non_terminated_nodes({})
    except Exception as error:
        # Each provider's library has its own exceptions.
        yield (
            f"{kind} could not be asked what still runs ({first_line(error)}); look in its "
            f"console for machines tagged ray-cluster-name = {tree['cluster_name']}"
        )
        return
    if left:
        yield f"{len(left)} machines are not ended yet at {kind}: {', '.join(map(str, left))}"


def _left_on_hosts(tree: Mapping[str, Any]) -> Iterator[str]:
    """Stops Ray on hosts where `ray down` left it, and yields where it still runs."""
    provider, auth = tree["provider"], tree["auth"]
    named = auth.get("ssh_private_key")
    key = ["-i", str(Path(named).expanduser())] if named else []
    # In a login shell, as the launcher does, because that has ray in its path.
    stop = "bash --login -i -c 'ray stop --force' > /dev/null 2>&1; pgrep -x raylet > /dev/null"
    for host in [provider["head_ip"], *provider.get("worker_ips", [])]:
        login = f"{auth['ssh_user']}@{host}" if "ssh_user" in auth else host
        done = subprocess.run(
            ["ssh", *_SSH_OPTIONS, *key, login, stop], capture_output=True, text=True
        )
        if done.returncode == 0:
            yield f"Ray still runs on {host}"
        elif done.returncode != 1:
            why = (done.stderr.strip() or "ssh failed").splitlines()[-1]
            yield f"{host} could not be asked what still runs ({why})"


def _num_gpus(nodes: list[Node]) -> int:
    return int(sum(node.gpus for node in nodes if node.alive))


def _ray(tree: Mapping[str, Any], *arguments: str, capture: bool = False) -> str:
    """Runs Ray's launcher; returns its output with `capture`, else passes it to stderr."""
    is_local = tree["provider"].get("type") == "local"
    # With autoscaler v2, workers on the user's own hosts never join (Ray 2.60).
    switch = {"RAY_UP_enable_autoscaler_v2": "0" if is_local else "1"}
    done = subprocess.run(
        [*_RAY, *arguments],
        env=os.environ | switch,
        stdout=subprocess.PIPE if capture else sys.stderr,
        stderr=subprocess.PIPE if capture else None,
        text=True,
    )
    if done.returncode:
        said = (done.stderr or "").strip().splitlines()
        why = f": {said[-1]}" if said else ", see above"
        raise UserError(f"`ray {arguments[0]}` failed with status {done.returncode}{why}")
    return done.stdout or ""
