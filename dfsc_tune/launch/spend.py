"""What a cluster has cost so far, by its nodes' hours and the assumed prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.launch.cluster_files import read_cluster_file
from dfsc_tune.launch.lifecycle import Node
from dfsc_tune.launch.prices import known_machines, price_date, spot_share
from dfsc_tune.launch.render import machine_names

SPOT = "gpu_spot"
"""The node type of spot machines in cluster files."""


@dataclass(frozen=True)
class Spend:
    """What a cluster has cost, about."""

    amount: float
    currency: str
    date: str
    """When the prices were noted."""


def spend_so_far(path: Path, nodes: Sequence[Node]) -> Spend | None:
    """What a cluster has cost; None for one's own hosts and machines of unknown price.

    Args:
        path: the cluster file.
        nodes: that it has and had; one of unknown type counts as the dearest, on demand.
    """
    tree = read_cluster_file(path)
    names = machine_names(tree)
    known = known_machines(tree["provider"]["type"])
    if not names or not set(names.values()) <= set(known):
        return None
    on_demand = {group: known[name].per_hour for group, name in names.items()}
    dearest = max(on_demand.values())

    def per_hour(node: Node) -> float:
        if node.is_head:
            return on_demand[tree["head_node_type"]]
        share = spot_share() if node.group == SPOT else 1.0
        return share * on_demand.get(node.group, dearest)

    currency, date = price_date()
    return Spend(sum(per_hour(node) * node.hours for node in nodes), currency, date)
