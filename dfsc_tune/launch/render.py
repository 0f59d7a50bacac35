"""Renders a cluster file: a shipped one with the user's values filled in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from dfsc_tune import __version__
from dfsc_tune.errors import UserError, first_line
from dfsc_tune.launch.cluster_files import PROVIDERS, shipped_cluster_files
from dfsc_tune.storage.documents import read_yaml

_SOURCE = "~/dfsc_tune_source"
_MACHINE_KEYS = {"aws": "InstanceType", "gcp": "machineType", "azure": "vmSize"}


@dataclass(frozen=True)
class ClusterWishes:
    """The cluster that a user wants; None keeps the value of the shipped file."""

    provider: str
    gpus: int = 8
    name: str = "dfsc-tune"
    machine: str | None = None
    gpus_per_machine: int | None = None
    cpus_per_machine: int | None = None
    region: str | None = None
    spot: bool = True
    """Spot machines first, on-demand ones if none is available; if false, on-demand only."""
    hours: int = 12
    """Lifetime after which each machine ends itself."""
    image: str | None = None
    """The machines' disk image."""
    project: str | None = None
    """On Google Cloud, the project; on Azure, the resource group."""
    hosts: tuple[str, ...] = ()
    """The user's own hosts; the first is the head."""
    user: str | None = None
    """The user who may log in to the hosts by ssh."""
    package: str | None = None
    """The package that nodes install: a local folder or wheel, or a requirement for pip."""


@dataclass(frozen=True)
class Machines:
    """The GPU machines of a rendered cluster."""

    name: str
    """The provider's name of the machine type."""
    count: int
    """Largest number of machines."""
    gpus: int
    """GPUs of each machine."""
    cpus: int
    """CPUs of each machine."""
    head: str
    """The machine type of the head."""


def render(wishes: ClusterWishes) -> tuple[str, Machines | None]:
    """Renders a cluster file.

    Returns:
        The file's text, and its machines (None for the user's own hosts).

    Raises:
        UserError: a value is missing or cannot be used.
    """
    if wishes.provider not in PROVIDERS:
        raise UserError(
            f"no cluster file for '{wishes.provider}'; choose from {', '.join(PROVIDERS)} (for "
            "Kubernetes, change cluster/kubernetes.yaml)"
        )
    tree = read_yaml(shipped_cluster_files() / f"{wishes.provider}.yaml")
    tree["cluster_name"] = wishes.name
    _set_package(tree, wishes)
    if wishes.provider == "on_premise":
        _set_hosts(tree, wishes)
        return _header(wishes, None) + _dump(tree), None
    machines = _machines(tree, wishes)
    _set_nodes(tree, wishes, machines)
    _set_place(tree, wishes)
    _set_lifetime(tree, wishes)
    return _header(wishes, machines) + _dump(tree), machines


def _machines(tree: Mapping[str, Any], wishes: ClusterWishes) -> Machines:
    """Returns the wanted machines; the resources of the shipped type are known."""
    types, key = tree["available_node_types"], _MACHINE_KEYS[wishes.provider]
    known = _settings(types["gpu_on_demand"])[key]
    name = wishes.machine or known
    resources = types["gpu_on_demand"]["resources"] if name == known else {}
    gpus = wishes.gpus_per_machine or resources.get("GPU")
    cpus = wishes.cpus_per_machine or resources.get("CPU")
    if gpus is None or cpus is None:
        raise UserError(
            f"give --gpus-per-machine and --cpus-per-machine with --machine {name}; look them up "
            f"at {wishes.provider}, for only those of {known} are known here"
        )
    head = _settings(types["head"])[key]
    return Machines(name, math.ceil(wishes.gpus / gpus), gpus, cpus, head)


def _settings(node: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a node type in which its machine is named."""
    config: dict[str, Any] = node["node_config"]
    settings: dict[str, Any] = config.get("azure_arm_parameters", config)
    return settings


def _set_nodes(tree: dict[str, Any], wishes: ClusterWishes, machines: Machines) -> None:
    tree["max_workers"] = tree["upscaling_speed"] = machines.count
    types = tree["available_node_types"]
    if not wishes.spot:
        del types["gpu_spot"]
    for name, node in types.items():
        if name != "head":
            node["max_workers"] = machines.count
            node["resources"] = {"CPU": machines.cpus, "GPU": machines.gpus}
            _settings(node)[_MACHINE_KEYS[wishes.provider]] = machines.name


def _set_place(tree: dict[str, Any], wishes: ClusterWishes) -> None:
    provider, types = tree["provider"], tree["available_node_types"]
    if wishes.provider == "aws":
        provider["region"] = wishes.region or provider["region"]
        image = wishes.image or _find_image(provider["region"])
        for node in types.values():
            node["node_config"]["ImageId"] = image
    elif wishes.provider == "gcp":
        if wishes.project is None:
            raise UserError("Google Cloud needs --project, the project to bill")
        provider["project_id"] = wishes.project
        if wishes.region:
            provider |= {"region": wishes.region, "availability_zone": f"{wishes.region}-a"}
        for node in types.values():
            for account in node["node_config"].get("serviceAccounts", []):
                account["email"] = account["email"].replace("PROJECT", wishes.project)
            if wishes.image and "serviceAccounts" in node["node_config"]:
                disk = node["node_config"]["disks"][0]
                disk["initializeParams"]["sourceImage"] = wishes.image
    else:
        provider["location"] = wishes.region or provider["location"]
        provider["resource_group"] = wishes.project or provider["resource_group"]
        if wishes.image:
            raise UserError("--image is for aws and gcp; on Azure, change the file's image* lines")


def _find_image(region: str) -> str:
    """Asks AWS for its newest image with NVIDIA's driver."""
    name = (
        "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
    )
    try:
        import boto3

        answer = boto3.client("ssm", region_name=region).get_parameter(Name=name)
    except Exception as error:
        # botocore makes its exceptions at run time; boto3 may also be missing.
        raise UserError(
            f"AWS did not name an image with NVIDIA's driver ({first_line(error)}); "
            "give its id with --image ami-…, see the head of cluster/aws.yaml"
        ) from error
    return str(answer["Parameter"]["Value"])


def _set_lifetime(tree: dict[str, Any], wishes: ClusterWishes) -> None:
    for number, command in enumerate(tree["setup_commands"]):
        command = re.sub(r"(shutdown -P \+)\d+", rf"\g<1>{60 * wishes.hours}", command)
        command = re.sub(r"(azure_guard\.sh )\d+", rf"\g<1>{wishes.hours}", command)
        tree["setup_commands"][number] = command
    for node in tree["available_node_types"].values():
        scheduling = node["node_config"].get("scheduling", {})
        if "maxRunDuration" in scheduling:
            scheduling["maxRunDuration"] = {"seconds": str(3600 * wishes.hours)}


def _set_hosts(tree: dict[str, Any], wishes: ClusterWishes) -> None:
    if not wishes.hosts:
        raise UserError("name your own hosts with --hosts HEAD,WORKER,…")
    tree["provider"] |= {"head_ip": wishes.hosts[0], "worker_ips": list(wishes.hosts[1:])}
    tree["max_workers"] = len(wishes.hosts) - 1
    tree["auth"]["ssh_user"] = wishes.user or tree["auth"]["ssh_user"]


def _set_package(tree: dict[str, Any], wishes: ClusterWishes) -> None:
    """Makes nodes install this package from the user's checkout, wheel or index."""
    checkout = Path(__file__).parents[2]
    given = wishes.package
    if given is None:
        is_checkout = (checkout / "pyproject.toml").is_file()
        given = str(checkout) if is_checkout else f"dfsc-tune=={__version__}"
    mounts = tree["file_mounts"]
    del mounts[_SOURCE]
    mounts["~/dfsc_tune_cluster"] = str(shipped_cluster_files())
    wheel = Path(given)
    if wheel.is_dir():
        mounts[_SOURCE] = str(wheel.resolve())
        what = "$HOME/dfsc_tune_source"
    elif wheel.suffix == ".whl" and wheel.is_file():
        mounts[f"~/{wheel.name}"] = str(wheel.resolve())
        what = f"$HOME/{wheel.name}"
    else:
        what = given
    extra = "" if wishes.provider == "on_premise" else f"[{wishes.provider}]"
    install = (
        "~/.local/bin/uv pip install --quiet --python ~/env/bin/python "
        "--constraint ~/dfsc_tune_cluster/constraints.txt "
        f"'ray[default,tune]=={ray.__version__}' "
        + (f'"{what}{extra}"' if what != given else f"'{_with_extra(what, extra)}'")
    )
    tree["setup_commands"] = [
        install
        if "uv pip install" in command
        else command.replace(f"{_SOURCE}/cluster/", "~/dfsc_tune_cluster/")
        for command in tree["setup_commands"]
    ]


def _with_extra(requirement: str, extra: str) -> str:
    name, *rest = re.split(r"(?=[=<>!~@ ])", requirement, maxsplit=1)
    return name + extra + "".join(rest)


def _header(wishes: ClusterWishes, machines: Machines | None) -> str:
    what = f"{wishes.gpus} GPUs on {wishes.provider}" if machines else f"{len(wishes.hosts)} hosts"
    lines = [f"A cluster of {what} for `dfsc-tune search`, written by `dfsc-tune cluster render`."]
    if machines:
        lines += [
            f"Cost: up to {machines.count} × {machines.name} and the head, {machines.head}, by the "
            "hour;",
            f"each machine ends itself {wishes.hours} hours after its set-up.",
        ]
    return "".join(f"# {line}\n" for line in lines) + "\n"


def _dump(tree: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(tree, sort_keys=False, width=100)
    return text
