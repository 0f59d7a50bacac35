"""Runs on a cluster's head: prints its present and former nodes in one line of JSON.

Usage: python -m dfsc_tune.launch.node_report [GPUS]; GPUS asks the autoscaler for that many.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

import ray
from ray.util.state import list_nodes

from dfsc_tune.launch.lifecycle import REPORT_MARK

_HOUR_MS = 3_600_000


def node_rows() -> list[dict[str, Any]]:
    """Lists the nodes of the connected cluster, with the fields of `lifecycle.Node`."""
    used = _gpus_used()
    rows = []
    for node in list_nodes(detail=True, limit=10_000):
        alive = node.state == "ALIVE"
        start = node.start_time_ms or 0
        end = time.time() * 1000 if alive else node.end_time_ms or start
        rows.append(
            {
                "host": node.node_ip,
                "group": (node.labels or {}).get("ray.io/node-group", ""),
                "alive": alive,
                "is_head": node.is_head_node,
                "gpus": node.resources_total.get("GPU", 0.0),
                "gpus_used": used.get(node.node_id, 0.0),
                "hours": (end - start) / _HOUR_MS,
            }
        )
    return rows


def _gpus_used() -> dict[str, float]:
    from ray._private.state import available_resources_per_node, total_resources_per_node

    free = available_resources_per_node()
    return {
        node: total.get("GPU", 0.0) - free.get(node, {}).get("GPU", 0.0)
        for node, total in total_resources_per_node().items()
    }


def main() -> None:
    """Prints the report."""
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    if len(sys.argv) > 1:
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[{"GPU": 1}] * int(sys.argv[1]))
    print(REPORT_MARK + json.dumps(node_rows()))


if __name__ == "__main__":
    main()
