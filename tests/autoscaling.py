"""A search on a cluster that has no GPU: Ray's autoscaler brings two nodes, and takes them back.

    python -m tests.autoscaling [v1 | v2] [up]

With `up`, the nodes are asked for before the search, as `cluster up --gpus` does.

The nodes are processes of this machine (Ray's provider `fake_multinode`), their GPUs are counters;
the autoscaler, the waiting, the search and the report of the nodes are the real ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dfsc_tune import results
from dfsc_tune.launch.lifecycle import REPORT_MARK
from tests.support.local_head import Head, local_head
from tests.support.trays import CATEGORY, make_tray

SPACE = """\
fixed:
  model: {network: tiny, image_size: 128, teacher: random}
parameters: {margin: {type: float, low: 0.0, high: 2.0}}
budget: {num_trials: 4, num_steps: 24, report_interval: 8, grace_period: 8}
"""
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
GROUP = "ray.io/node-group"
GPU_NODES = 2
_PATIENCE_SECONDS = 240
_LOOK_SECONDS = 20


def cluster_config(head_address: str) -> dict[str, object]:
    """What Ray's autoscaler is given; a node is idle after 6 seconds."""
    none: list[str] = []
    gpu = {
        "resources": {"CPU": 1, "GPU": 1},
        "node_config": {},
        "min_workers": 0,
        "max_workers": GPU_NODES,
    }
    return {
        "cluster_name": "autoscaling",
        "max_workers": GPU_NODES,
        "upscaling_speed": 8,
        "idle_timeout_minutes": 0.1,
        "provider": {
            # By its name, a file would be looked for that Ray's wheel lacks.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "head_node_id": HEAD_ID,
            "gcs_address": head_address,
            "launch_multiple": True,
            # All nodes have the loopback's address.
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            # The label is what `ray start` makes of the type's name on a real machine.
            "gpu_on_demand": {**gpu, "priority": 0, "labels": {GROUP: "gpu_on_demand"}},
            "gpu_spot": {**gpu, "priority": 1, "labels": {GROUP: "gpu_spot"}},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": none,
        "initialization_commands": none,
        "setup_commands": none,
        "head_setup_commands": none,
        "worker_setup_commands": none,
        "head_start_ray_commands": none,
        "worker_start_ray_commands": none,
        "file_mounts_sync_continuously": False,
        "rsync_exclude": none,
        "rsync_filter": none,
    }


def gpu_nodes(head: Head, *wanted: str) -> list[str]:
    """The types of the nodes that have a GPU now, by the report that `cluster status` uses.

    Args:
        head: of the cluster.
        wanted: how many GPUs to ask for, if any.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dfsc_tune.launch.node_report", *wanted],
        env=head.environment | {"RAY_ADDRESS": head.address},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout.split(REPORT_MARK, 1)[1].splitlines()[0])
    return [row["group"] for row in rows if row["alive"] and row["gpus"]]


def main(version: str = "v2", up: str = "") -> None:
    """Prints which GPU nodes there are before, while the search has them, and after.

    Args:
        version: of Ray's autoscaler, v1 or v2.
        up: `up` to ask for the nodes before the search.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tray(folder / "data")
        (folder / "space.yaml").write_text(SPACE)
        (folder / "cluster.yaml").write_text(json.dumps(cluster_config("127.0.0.1:26379")))
        start = time.monotonic()

        def tell(text: str) -> None:
            print(f"{time.monotonic() - start:6.1f} s  {text}", flush=True)

        with local_head(
            folder,
            "--num-cpus=0",
            f"--autoscaling-config={folder / 'cluster.yaml'}",
            AUTOSCALER_UPDATE_INTERVAL_S="1",
            RAY_FAKE_CLUSTER="1",
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=HEAD_ID,
            RAY_CLOUD_INSTANCE_ID=HEAD_ID,
            RAY_enable_autoscaler_v2={"v1": "0", "v2": "1"}[version],
        ) as head:
            tell(f"GPU nodes before: {gpu_nodes(head, *([str(GPU_NODES)] if up else []))}")
            while up and len(gpu_nodes(head)) < GPU_NODES:
                time.sleep(1)
            search = subprocess.Popen(
                [
                    sys.executable, "-m", "dfsc_tune", "search", "--data", "data", "--category",
                    CATEGORY, "--space", "space.yaml", "--gpus", str(GPU_NODES),
                    "--wait-for-gpus", "3", "--address", head.address, "--name", "x",
                ],
                cwd=folder, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True,
            )  # fmt: skip
            assert search.stdout is not None
            for line in search.stdout:
                if "waiting for GPUs" in line or "complete" in line or "error" in line:
                    tell(line.strip())
                if line.startswith("1/"):
                    tell(f"GPU nodes then: {gpu_nodes(head)}")
            assert search.wait() == 0
            trials = results.load(folder / "results" / "x").trials
            tell(f"the search ended: {trials['state'].value_counts().to_dict()}")
            # Who looks is a process on a node, which then is not idle: not too often.
            time.sleep(_LOOK_SECONDS)
            while (left := gpu_nodes(head)) and time.monotonic() < start + _PATIENCE_SECONDS:
                time.sleep(_LOOK_SECONDS)
            tell(f"GPU nodes after: {left}")
            assert not left


if __name__ == "__main__":
    main(*sys.argv[1:])
