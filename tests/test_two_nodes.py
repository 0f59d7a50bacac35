"""A search over two nodes that `ray start` made: what a node is sent, and what its loss costs."""

from __future__ import annotations

import json
import os
import pickle
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dfsc_tune import results
from dfsc_tune.training.prepare import CategoryData
from tests.support.processes import free_port, kill_tree
from tests.support.trays import CATEGORY

pytestmark = pytest.mark.slow

# So many that the second node, whose first process may be slow to start, gets its share.
NUM_TRIALS, NUM_STEPS = 24, 12
SPACE = f"""\
fixed:
  model: {{network: tiny, image_size: 128, teacher: random}}
  train: {{learning_rate: 1e-3}}
parameters:
  margin: {{type: float, low: 0.0, high: 2.0}}
budget: {{num_trials: {NUM_TRIALS}, num_steps: {NUM_STEPS}, report_interval: 2, grace_period: 12}}
resources: {{gpus_per_trial: 1}}
"""
SEARCH = "from dfsc_tune.cli import app; app()"
# Waits for a line, then says how many bytes have come into a node's object store since its start.
STORE = """
import sys
from ray._private.internal_api import node_stats
input()
stats = node_stats(sys.argv[1], int(sys.argv[2]), include_memory_info=False).store_stats
print(stats.cumulative_created_bytes)
"""
# Both nodes are on this machine: the second one's processes take it for another.
SECOND = "import platform\nplatform.node = lambda: 'second'\n"
# So that no other machine can join; Ray's ports are open to all while the test runs.
TOKEN = secrets.token_hex(16)
PATIENCE_SECONDS = 180


def test_a_node_gets_the_data_once_and_what_it_ran_goes_on_when_it_is_lost(
    tmp_path: Path, data_folder: Path, category_data: CategoryData
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    ledger = tmp_path / "results" / "x" / "ledger.jsonl"
    with two_nodes(tmp_path) as (address, second, second_port):
        host = address.partition(":")[0]
        store = start(tmp_path, "-c", STORE, host, str(second_port))
        search = start(
            tmp_path, "-c", SEARCH, "search", "--data", str(data_folder), "--category", CATEGORY,
            "--space", "space.yaml", "--name", "x", "--address", address, "--gpus", "2",
            # The second node's raylet answers before the cluster knows of it.
            "--device", "cpu", "--wait-for-gpus", "2",
        )  # fmt: skip
        wait_until(lambda: len(trials_on("second", ledger, whole=True)) >= 2, search)
        created, _ = store.communicate("\n", timeout=PATIENCE_SECONDS)
        wait_until(lambda: bool(trials_on("second", ledger, whole=False)), search)
        (lost,) = trials_on("second", ledger, whole=False)
        kill_tree(second.pid)
        _, said = search.communicate(timeout=PATIENCE_SECONDS)
    assert search.returncode == 0, said
    # Two trials ran there, and more of them were begun: the data came once.
    data = len(pickle.dumps(category_data.trial, protocol=5))
    assert data <= int(created) < 1.5 * data
    trials = results.load(tmp_path / "results" / "x").trials.set_index("trial")
    assert trials["state"].tolist() == ["complete"] * NUM_TRIALS
    assert f"trial {lost} broke after step" in said
    assert trials.loc[lost, "node"] != "second"
    # It went on from its checkpoint: no step was reported twice, and some of them from there.
    where = steps_by_node(ledger)[lost]
    assert sorted(step for steps in where.values() for step in steps) == [2, 4, 6, 8, 10, 12]
    assert set(where) == {"second", trials.loc[lost, "node"]}


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str], int]]:
    """A cluster of two nodes: its address, the second node and the port of that one's raylet."""
    (folder / "second").mkdir()
    (folder / "second" / "sitecustomize.py").write_text(SECOND)
    port, second_port = free_port(), free_port()
    resources = ("--num-cpus", "1", "--num-gpus", "1", "--object-store-memory", "200000000")
    ray = ("-m", "ray.scripts.scripts", "start", "--block", *resources)
    nodes = []
    # The path of a socket may be about a hundred characters long, and pytest's folders are.
    short = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
    try:
        head = ("--head", "--port", str(port), "--include-dashboard=false")
        nodes += [start(folder, *ray, *head, "--temp-dir", short.name)]
        address = f"{own_address()}:{port}"
        wait_until(lambda: answers(address), nodes[0])
        other = ("--address", address, "--node-manager-port", str(second_port))
        nodes += [start(folder, *ray, *other, path=folder / "second")]
        wait_until(lambda: answers(f"{own_address()}:{second_port}"), nodes[1])
        yield address, nodes[1], second_port
    finally:
        for node in nodes:
            kill_tree(node.pid)
            node.communicate()
        short.cleanup()


def start(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.Popen[str]:
    """A Python process in a folder."""
    of_ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    of_ray |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    paths = [str(path)] if path else []
    paths += [x for x in os.environ.get("PYTHONPATH", "").split(os.pathsep) if x]
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **of_ray, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def steps_by_node(ledger: Path) -> dict[str, dict[str, list[int]]]:
    """Of each trial, the steps that it reported, by the node that it was on."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    if ledger.exists():
        text = ledger.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            event = json.loads(line)
            if event["event"] == "reported":
                found[event["trial"]][event["hostname"]].append(event["step"])
    return found


def trials_on(node: str, ledger: Path, *, whole: bool) -> list[str]:
    """The trials on a node that have come to their end, or that have not yet."""
    found = steps_by_node(ledger)
    return [x for x, of in found.items() if node in of and (of[node][-1] == NUM_STEPS) == whole]


def own_address() -> str:
    """The address that Ray takes for this machine's."""
    import ray

    return ray.util.get_node_ip_address()


def answers(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True
