"""What a cluster has cost so far, by its nodes' hours and the assumed prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.launch.cluster_files import read_cluster_file
from dfsc_tune.launch.lifecycle import Node
from dfsc_tune.launch.prices import known_machines, price_date, spot_share
from dfsc_tune.launch.render import machine_names


@dataclass(frozen=True)
class Spend:
    """A range, for which machines were spot is not known to Ray."""

    low: float
    """If every GPU machine was spot, where the file has such."""
    high: float
    """If every one was on demand."""
    currency: str
    date: str
    """When the prices were noted."""


def spend_so_far(path: Path, nodes: Sequence[Node]) -> Spend | None:
    """What a cluster has cost; None for one's own hosts and machines of unknown price.

    Args:
        path: the cluster file.
        nodes: that it has and had.
    """
    tree = read_cluster_file(path)
    names = machine_names(tree)
    known = known_machines(tree["provider"]["type"])
    if not names or not set(names.values()) <= set(known):
        return None
    head = known[names["head"]].per_hour
    worker = known[names["gpu_on_demand"]].per_hour
    of_head = head * sum(node.hours for node in nodes if node.is_head)
    of_workers = worker * sum(node.hours for node in nodes if not node.is_head)
    share = spot_share() if "gpu_spot" in names else 1.0
    currency, date = price_date()
    return Spend(of_head + share * of_workers, of_head + of_workers, currency, date)
