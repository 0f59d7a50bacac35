"""The files of `cluster/`, and rendered ones: valid, pinned, guarded."""

from __future__ import annotations

import copy
import gzip
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dfsc_tune import __version__
from dfsc_tune.errors import UserError
from dfsc_tune.launch import jobs, lifecycle
from dfsc_tune.launch.cluster_files import (
    PLACEHOLDER,
    PROVIDERS,
    check_cluster_file,
    faults,
    filled,
    shipped_cluster_files,
)
from dfsc_tune.launch.lifecycle import Node
from tests.support.commands import assert_one_sentence, invoke

FOLDER = shipped_cluster_files()
SCHEMAS = Path(__file__).parent / "assets" / "kuberay"
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def header(text: str) -> str:
    lines = (line for line in text.splitlines() if line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines)


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return request.param


def test_ray_takes_it_and_nothing_is_unsafe_or_without_a_limit(provider: str) -> None:
    tree = yaml.safe_load(read(f"{provider}.yaml"))
    filled(tree)
    assert list(faults(tree)) == []


def test_each_says_its_purpose_cost_commands_and_what_to_change(provider: str) -> None:
    text = header(read(f"{provider}.yaml"))
    for word in ("dfsc-tune search", "Cost:", "cluster up", "submit", "cluster down", "Change:"):
        assert word in text


def test_a_file_with_placeholders_is_not_launched(provider: str) -> None:
    path = FOLDER / f"{provider}.yaml"
    if provider == "azure":
        assert check_cluster_file(path)["max_workers"] == 8
    else:
        with pytest.raises(UserError, match="must be replaced"):
            check_cluster_file(path)


def without(tree: dict[str, Any], *keys: str) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    inner = tree
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return tree


def test_faults_are_found() -> None:
    tree = yaml.safe_load(read("aws.yaml"))

    def changed(old: str, new: str) -> str:
        text = yaml.safe_dump(tree, width=10_000)
        assert old in text
        return "; ".join(faults(yaml.safe_load(text.replace(old, new))))

    assert "nightly" in changed("'ray[default,tune]==2.60.0'", "https://ray-wheels/latest.whl")
    assert "installs Ray 2.59.0" in changed("tune]==2.60.0", "tune]==2.59.0")
    assert "0.0.0.0" in changed("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0")
    assert changed("region: us-east-1", "vpc: 10.0.0.0/16") == ""
    assert "not limited to the head's loopback" in changed("--dashboard-host=127.0.0.1", "")
    assert "without RAY_AUTH_MODE" in changed(
        "RAY_AUTH_MODE=token ray start --address", "ray start"
    )
    assert "nothing ends the machines of gpu_spot" in changed("sudo shutdown -P +720", "echo")
    assert "stopped, not terminated" in changed("Behavior: terminate", "Behavior: stop")
    assert "max_workers" in "; ".join(faults(without(tree, "max_workers")))
    assert "token" in "; ".join(faults(without(tree, "file_mounts", "~/.ray/auth_token")))
    assert "that start Ray" in "; ".join(faults(without(tree, "worker_start_ray_commands")))


def test_what_ray_refuses_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(read("azure.yaml").replace("max_workers: 8\nups", "max_wrkers: 8\nups"))
    with pytest.raises(UserError, match=r"Ray refuses it .*max_wrkers"):
        check_cluster_file(path)
    with pytest.raises(UserError, match="cluster render"):
        check_cluster_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xd2\xff", "not UTF-8 text"),
        (b"a: [1\nb: {", "cluster.yaml:2: not valid YAML"),
        (b"max_workers: 8", "not a cluster file"),
        (b"provider: aws", "not a cluster file"),
        (b"provider: {region: us-east-1}", "not a cluster file"),
    ],
)
def test_what_is_no_cluster_file_is_one_sentence(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(content)
    assert_one_sentence(invoke("cluster", "status", path), text)


def test_pins_fit_the_package_and_agree_with_each_other() -> None:
    pins = dict(line.split("==") for line in read("constraints.txt").splitlines() if "==" in line)
    assert pins["ray"] == ray.__version__
    for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["aws"][1:]):
        needed = Requirement(text)
        assert needed.specifier.contains(pins[canonicalize_name(needed.name)]), text
    everything = " ".join(path.read_text() for path in FOLDER.iterdir())
    assert set(re.findall(r"ray(?:\[[\w,]+\])?==([\w.]+)", everything)) == {ray.__version__}
    tag = f"dfsc-tune:{__version__}-ray{ray.__version__}"
    assert set(re.findall(r"REGISTRY/([\w.:-]+)", everything)) == {tag}


def strict(schema: Any) -> Any:
    """The schema, but that fields it does not know are refused."""
    if isinstance(schema, list):
        return [strict(x) for x in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(x) for key, x in schema.items()}
    if isinstance(found.get("properties"), dict) and "type" in found:
        found.setdefault("additionalProperties", False)
    return found


def kubernetes() -> dict[str, Any]:
    return {tree["kind"]: tree for tree in yaml.safe_load_all(read("kubernetes.yaml"))}


def check_kubernetes(kind: str, tree: dict[str, Any]) -> None:
    name = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}[kind]
    schema = json.loads(gzip.decompress((SCHEMAS / f"{name}.v1.schema.json.gz").read_bytes()))
    jsonschema.Draft202012Validator(strict(schema)).validate(tree)


def test_kuberay_takes_the_documents_and_would_refuse_a_typo() -> None:
    documents = kubernetes()
    assert set(documents) == {"RayCluster", "RayJob"}
    for kind, tree in documents.items():
        check_kubernetes(kind, tree)
    documents["RayCluster"]["spec"]["authOption"] = {"mode": "token"}
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        check_kubernetes("RayCluster", documents["RayCluster"])


def test_kubernetes_is_guarded_and_the_job_runs_our_search() -> None:
    documents = kubernetes()
    job = documents["RayJob"]["spec"]
    assert job["shutdownAfterJobFinishes"]
    assert job["activeDeadlineSeconds"] == 43200
    for spec in (job["rayClusterSpec"], documents["RayCluster"]["spec"]):
        assert spec["rayVersion"] == ray.__version__
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        (gpu,) = spec["workerGroupSpecs"]
        assert (gpu["minReplicas"], gpu["maxReplicas"]) == (0, 8)
        for group in (spec["headGroupSpec"], gpu):
            assert group["template"]["spec"]["activeDeadlineSeconds"] == 43200
    from tests.support.readmes import COMMANDS

    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["dfsc-tune", "search"]
    COMMANDS[("search",)].make_context("search", words[2:])


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_the_header_names_the_machines_that_are_paid(provider: str) -> None:
    text = header(read(f"{provider}.yaml"))
    types = yaml.safe_load(read(f"{provider}.yaml"))["available_node_types"]
    head, *workers = (json.dumps(types[x]) for x in ("head", "gpu_spot", "gpu_on_demand"))
    named = re.search(r"up to 8 × (\S+) .* and the head, (\S+) ", text)
    assert named is not None
    assert all(f'"{named[1]}"' in worker for worker in workers)
    assert f'"{named[2]}"' in head


def rendered(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    path = tmp_path / "cluster.yaml"
    result = invoke("cluster", "render", *arguments, "--output", path)
    assert result.exit_code == 0, result.output
    return check_cluster_file(path), result.stdout


def test_render_aws(tmp_path: Path) -> None:
    tree, said = rendered(
        tmp_path, "aws", "--gpus", "6", "--machine", "g6.12xlarge", "--gpus-per-machine", "4",
        "--cpus-per-machine", "48", "--region", "eu-west-1", "--image", "ami-1",
        "--hours", "3", "--no-spot", "--package", "dfsc-tune==0.1.0",
    )  # fmt: skip
    assert set(tree["available_node_types"]) == {"head", "gpu_on_demand"}
    worker = tree["available_node_types"]["gpu_on_demand"]
    assert worker["node_config"]["InstanceType"] == "g6.12xlarge"
    assert worker["resources"] == {"CPU": 48, "GPU": 4}
    assert tree["max_workers"] == worker["max_workers"] == 2
    assert tree["provider"]["region"] == "eu-west-1"
    assert "sudo shutdown -P +180" in tree["setup_commands"]
    assert any("'dfsc-tune[aws]==0.1.0'" in command for command in tree["setup_commands"])
    assert "up to 2 × g6.12xlarge, and the head, m7i.2xlarge" in said
    assert "6 machine-hours with GPUs, and 3 of the head" in said


def test_render_gcp_azure_and_own_hosts(tmp_path: Path) -> None:
    tree, _ = rendered(tmp_path / "a", "gcp", "--project", "mine", "--hours", "2")
    for node in tree["available_node_types"].values():
        assert node["node_config"]["scheduling"]["maxRunDuration"] == {"seconds": "7200"}
    assert "mine.iam" in json.dumps(tree)
    tree, _ = rendered(tmp_path / "b", "azure", "--region", "westeurope", "--hours", "2")
    assert tree["provider"]["location"] == "westeurope"
    assert any("azure_guard.sh 2 " in command for command in tree["setup_commands"])
    tree, said = rendered(tmp_path / "c", "on_premise", "--hosts", "a,b,c", "--user", "me")
    assert tree["provider"] == {"type": "local", "head_ip": "a", "worker_ips": ["b", "c"]}
    assert (tree["max_workers"], tree["auth"]["ssh_user"]) == (2, "me")
    assert "machine-hours" not in said


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["moon"], "choose from aws"),
        (["aws", "--image", "a", "--machine", "x9"], "--gpus-per-machine"),
        (["aws", "--machine", "x9", "--gpus-per-machine", "8"], "--cpus-per-machine"),
        (["gcp"], "--project"),
        (["on_premise"], "--hosts"),
    ],
)
def test_render_says_what_is_missing(tmp_path: Path, arguments: list[str], text: str) -> None:
    result = invoke("cluster", "render", *arguments, "--output", tmp_path / "cluster.yaml")
    assert_one_sentence(result, text)
    assert not (tmp_path / "cluster.yaml").exists()


def test_another_machine_is_described_by_its_user(tmp_path: Path) -> None:
    tree, _ = rendered(
        tmp_path, "aws", "--image", "a", "--machine", "x9", "--gpus-per-machine", "8",
        "--cpus-per-machine", "96",
    )  # fmt: skip
    assert tree["available_node_types"]["gpu_spot"]["resources"] == {"CPU": 96, "GPU": 8}
    assert not PLACEHOLDER.search(yaml.safe_dump(tree))


@pytest.mark.parametrize(("minutes_with_ray", "ends_after"), [((), 30), (range(13, 16), 25)])
def test_a_machine_on_azure_has_half_an_hour_to_start_ray(
    tmp_path: Path, minutes_with_ray: Sequence[int], ends_after: int
) -> None:
    minutes = tmp_path / "minutes"
    commands = {
        "sleep": f"echo >> {minutes}",
        "pgrep": f"case ' {' '.join(map(str, minutes_with_ray))} ' in "
        f'*" $(wc -l < {minutes}) "*) exit 0;; *) exit 1;; esac',
        "curl": "kill $GUARD",
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    guard = ["bash", "-c", f"GUARD=$$ exec bash {FOLDER / 'azure_guard.sh'} 12"]
    subprocess.run(guard, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout=60)
    assert len(minutes.read_text().splitlines()) == ends_after


def test_status_adds_up_machine_hours_by_type(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        Node("a", "", True, True, 0, 0, hours=4),
        Node("b", "gpu_spot", True, False, 1, 1, hours=2),
        Node("c", "gpu_spot", False, False, 1, 0, hours=1),
        Node("d", "gpu_on_demand", True, False, 1, 0, hours=0.5),
    ]
    monkeypatch.setattr(lifecycle, "nodes_of", lambda path: nodes)
    monkeypatch.setattr(jobs, "connected", lambda cluster: nullcontext())
    monkeypatch.setattr(jobs, "list_jobs", lambda client: [])
    said = invoke("cluster", "status", FOLDER / "aws.yaml").stdout
    assert "3 nodes, 1 of 2 GPUs in use" in said
    assert "0.5 gpu_on_demand, 3.0 gpu_spot, 4.0 head" in said


def test_up_wants_what_is_shipped_and_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    rendered(tmp_path, "on_premise", "--hosts", "a,b", "--user", "me")
    result = invoke("cluster", "up", tmp_path / "cluster.yaml")
    assert_one_sentence(result, "there is no ~/.ssh/id_ed25519")


def test_down_does_not_claim_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_ray", lambda *arguments, **options: "")
    # No host of that name answers, and no cloud lets us in.
    result = invoke("cluster", "down", FOLDER / "on_premise.yaml")
    assert result.exit_code == 1
    assert "HEAD_HOST could not be asked" in result.stderr
    assert "not sure" in result.stderr
    nodes: list[str] = ["i-1"]
    monkeypatch.setattr(
        "ray.autoscaler._private.providers._get_node_provider",
        lambda config, name: SimpleNamespace(non_terminated_nodes=lambda tags: nodes),
    )
    result = invoke("cluster", "down", FOLDER / "aws.yaml")
    assert (result.exit_code, "i-1" in result.stderr) == (1, True)
    nodes.clear()
    result = invoke("cluster", "down", FOLDER / "aws.yaml")
    assert (result.exit_code, "nothing" in result.stdout) == (0, True)

    def says_nothing(config: object, name: str) -> None:
        raise NotImplementedError

    monkeypatch.setattr("ray.autoscaler._private.providers._get_node_provider", says_nothing)
    result = invoke("cluster", "down", FOLDER / "aws.yaml")
    assert (result.exit_code, "(NotImplementedError)" in result.stderr) == (1, True)
