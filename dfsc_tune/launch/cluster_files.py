"""Cluster files: finding the shipped ones, reading and checking one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dfsc_tune.errors import UserError, first_line
from dfsc_tune.storage.documents import read_text, read_yaml
from dfsc_tune.storage.places import shipped_folder

PROVIDERS = ("aws", "gcp", "azure", "on_premise")
TOKEN_MOUNT = "~/.ray/auth_token"
# Placeholders in the shipped files for what only the user can know.
PLACEHOLDER = re.compile(r"\b(ami-CHANGE_ME|PROJECT|HEAD_HOST|WORKER_HOST_\d)\b")
_RAY_PIN = re.compile(r"\bray(?:\[[\w,]+\])?==([\w.]+)")
# Not within 10.0.0.0/16, a usual network.
_ALL_ADDRESSES = re.compile(r"(?<![\d.])0\.0\.0\.0")
_START = re.compile(r"\bray start\b")


def shipped_cluster_files() -> Path:
    """Returns the folder of the shipped cluster files."""
    return shipped_folder("cluster")


def read_cluster_file(path: Path) -> dict[str, Any]:
    """Reads a cluster file of Ray's launcher.

    Raises:
        UserError: there is no such file, or it is not a cluster file.
    """
    try:
        tree = read_yaml(path)
    except UserError as error:
        raise UserError(
            f"{error}; write a cluster file with `dfsc-tune cluster render aws`"
        ) from error
    settings: dict[str, Any] = tree if isinstance(tree, dict) else {}
    provider = settings.get("provider")
    if not isinstance(provider, dict) or "type" not in provider:
        raise UserError(
            f"{path} is not a cluster file of Ray's launcher: it has no `provider` with a `type`; "
            "see `dfsc-tune cluster render`"
        )
    return settings


def check_cluster_file(path: Path) -> dict[str, Any]:
    """Reads a cluster file and checks that it can be launched safely.

    Raises:
        UserError: it cannot; the error lists all that must be mended.
    """
    tree = read_cluster_file(path)
    problems = list(_against_schema(tree)) or list(faults(tree))
    left = sorted(set(PLACEHOLDER.findall(read_text(path).split("\ncluster")[-1])))
    if left:
        problems.append(f"{', '.join(left)} must be replaced by your own values")
    if problems:
        raise UserError(f"{path} cannot be launched: {'; '.join(problems)}")
    return tree


def filled(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Adds Ray's defaults for the provider to the settings, and lets Ray check them.

    Raises:
        Exception: Ray's own, for settings that it refuses.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(dict(tree))
    validate_config(prepared)
    return prepared


def faults(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yields a sentence for each unsafe or unlimited setting of a cluster."""
    from ray import __version__ as ray_version

    text = yaml.safe_dump(dict(tree))
    pins = set(_RAY_PIN.findall(text))
    if "nightly" in text or "ray-wheels" in text or "dev0" in text:
        yield "it installs a nightly Ray"
    if pins != {ray_version}:
        found = ", ".join(sorted(pins)) or "no version"
        yield f"it installs Ray {found}, but this machine has {ray_version}"
    if _ALL_ADDRESSES.search(text):
        yield "something listens on all addresses (0.0.0.0)"
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in tree.get(key, [])
        if _START.search(command)
    ]
    if len(starts) != 2:
        yield "the commands that start Ray on the head and on workers are missing"
    if not all("RAY_AUTH_MODE=token" in command for command in starts):
        yield "Ray is started without RAY_AUTH_MODE=token"
    if not any("--dashboard-host=127.0.0.1" in command for command in starts):
        yield "the dashboard is not limited to the head's loopback (--dashboard-host=127.0.0.1)"
    if TOKEN_MOUNT not in tree.get("file_mounts", {}):
        yield f"the token is not among the file_mounts ({TOKEN_MOUNT})"
    if not isinstance(tree.get("max_workers"), int):
        yield "max_workers is missing, so nothing limits how many machines are rented"
    if tree["provider"].get("type") != "local":
        yield from _lifetime_faults(tree)


def _lifetime_faults(tree: Mapping[str, Any]) -> Iterator[str]:
    setup = " ".join(tree.get("setup_commands", []))
    by_setup = "shutdown -P +" in setup or "azure_guard.sh" in setup
    for name, node in tree.get("available_node_types", {}).items():
        config = node["node_config"]
        limited = "maxRunDuration" in config.get("scheduling", {})
        if not limited and not by_setup:
            yield f"nothing ends the machines of {name} after some hours"
        on_aws = tree["provider"]["type"] == "aws"
        if on_aws and config.get("InstanceInitiatedShutdownBehavior") != "terminate":
            yield f"machines of {name} would be stopped, not terminated, at their end"


def _against_schema(tree: Mapping[str, Any]) -> Iterator[str]:
    try:
        filled(tree)
    except Exception as error:
        # jsonschema's message is its first line; Ray's own are one line.
        yield f"Ray refuses it ({first_line(error)})"
