"""Jobs of a real local head with a token: a search killed, stopped, resumed, fetched; refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from dfsc_tune import results
from dfsc_tune.errors import UserError
from dfsc_tune.launch.jobs import fetch_from_head, follow
from dfsc_tune.launch.pack import pack
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import SearchSpace, load_space
from dfsc_tune.storage.object_store import Store
from tests.support.commands import assert_one_sentence, invoke
from tests.support.local_head import Head, local_head
from tests.support.object_store import s3_server
from tests.support.trays import CATEGORY, make_tray

ADDRESS = "s3://bucket/runs"
SPACE = """\
fixed:
  model: {network: tiny, image_size: 128, teacher: random}
parameters: {margin: {type: float, low: 0.0, high: 2.0}}
budget: {num_trials: 3, num_steps: 240, report_interval: 8, grace_period: 120}
"""


def test_what_a_command_needs_goes_along(tmp_path: Path) -> None:
    (tmp_path / "my space.yaml").write_text(SPACE)
    folder = tmp_path / "job"
    folder.mkdir()
    words = ["search", "--category=all", "--gpus", "8", "--space", str(tmp_path / "my space.yaml")]
    job = pack([*words, "--results", ADDRESS], folder, "x", wait=True)
    assert job.command == (
        "python -m dfsc_tune search --category all --gpus 8 --space 'my space.yaml' "
        f"--results {ADDRESS} --wait-for-gpus 30 --name x"
    )
    assert job.run == f"{ADDRESS}/x"
    assert load_space(str(folder / "my space.yaml")) == loads(SPACE, SearchSpace, "space")
    job = pack(["search", "--name", "y", "--results", "/shared"], folder, "x", wait=False)
    assert job.run == "/shared/y"
    assert pack(["resume", f"{ADDRESS}/y"], folder, "x", wait=False).run == f"{ADDRESS}/y"


def test_files_that_a_space_names_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "job"
    # Two of one name, the space's own, as a card of it would have.
    for name, content in (("a/space.pth", b"one"), ("b/space.pth", b"two")):
        path = Path(name)
        path.parent.mkdir()
        path.write_bytes(content)
    Path("a/space.yaml").write_text("a card")
    folder.mkdir()
    text = SPACE.replace("teacher: random", "teacher: a/space.pth") + (
        "categories:\n"
        "  box:\n"
        "    fixed: {model: {teacher: b/space.pth}, train: {learning_rate: 1e-4}}\n"
        "  cup: {fixed: {model: {teacher: tiny}, train: {penalty_images: /photographs}}}\n"
    )
    Path("space.yaml").write_text(text)
    words = ["search", "--results", ADDRESS, "--space", "space.yaml"]
    pack(words, folder, "x", wait=False)
    monkeypatch.chdir(folder)
    sent, own = load_space("space.yaml"), loads(text, SearchSpace, "space")
    first = Path(sent.fixed["model"]["teacher"])
    second = Path(sent.categories["box"].fixed["model"]["teacher"])
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    assert first.with_suffix(".yaml").read_text() == "a card"
    # All else is as it was.
    assert sent.categories["box"].fixed["train"] == {"learning_rate": 1e-4}
    assert sent.categories["cup"] == own.categories["cup"]
    assert (sent.parameters, sent.budget) == (own.parameters, own.budget)
    monkeypatch.chdir(tmp_path)
    # A search that is resumed needs them again.
    again = ["resume", f"{ADDRESS}/y", "--teacher", "a/space.pth", "--teacher=b/space.pth"]
    job = pack(again, folder, "x", wait=False)
    assert job.command.endswith(f"--teacher {first} --teacher {second}")
    Path("space.yaml").write_text(text.replace("/photographs", "photographs"))
    with pytest.raises(UserError, match="names the folder photographs of this machine"):
        pack(words, folder, "x", wait=False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["dance"], "give a command"),
        (["search", "--category", "a"], "--results must be an address"),
        (["search", "--results", "results"], "--results must be an address"),
        (["search", "--results", "s3://k:s@b/x"], "holds a key"),
        (["search", "--results", ADDRESS, "--data", "data"], "is on this machine"),
        (["search", "--results", ADDRESS, "--space", "none.yaml"], "no search space"),
        (["search", "--results", ADDRESS, "--teacher", "none.pth"], "no teacher weights"),
        (["search", "--results", ADDRESS, "--address", "auto"], "leave out --address"),
        (["resume", "nightly"], "must be an address"),
    ],
)
def test_what_cannot_run_there_is_refused(words: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=text):
        pack(words, tmp_path, "x", wait=False)


def test_no_cluster_is_one_sentence(tmp_path: Path) -> None:
    assert_one_sentence(
        invoke("job", "list", "--cluster", "http://127.0.0.1:9"), "no dashboard answers"
    )
    assert_one_sentence(invoke("job", "list", "--cluster", tmp_path / "no.yaml"), "cluster file")


class LosingClient:
    """A client that loses the cluster while it follows a job."""

    def __init__(self) -> None:
        self.lost = False

    def list_jobs(self) -> list[SimpleNamespace]:
        if self.lost:
            raise requests.exceptions.ConnectionError("Connection aborted.")
        status = SimpleNamespace(value="RUNNING")
        job = {"submission_id": "j", "job_id": "j", "status": status, "metadata": {}}
        return [SimpleNamespace(**job, start_time=0, entrypoint="", message=None)]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "text"
        self.lost = True


def test_a_cluster_that_is_lost_is_told_from_a_reader_who_leaves() -> None:
    with pytest.raises(UserError, match="no dashboard answers"):
        follow(LosingClient(), "j", print)

    def gone(text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        follow(LosingClient(), "j", gone)


def test_a_run_from_the_head_does_not_go_over_one_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []

    def copy(command: list[str], **settings: object) -> subprocess.CompletedProcess[str]:
        copied.append(command[-2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", copy)
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="is no copy of /shared/x"):
        fetch_from_head(Path("cluster.yaml"), "/shared/x", tmp_path)
    assert not copied
    for _ in range(2):
        fetch_from_head(Path("cluster.yaml"), "/shared/y", tmp_path)
    assert copied == [["/shared/y/", f"{tmp_path}/y/"]] * 2


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Head, Path]]:
    """A head that a store with data lets in, as by a machine's role, and a folder with a space."""
    folder = tmp_path_factory.mktemp("head")
    make_tray(folder / "data")
    (folder / "space.yaml").write_text(SPACE)
    with s3_server("bucket") as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        for path in (folder / "data").rglob("*.png"):
            Store("s3://bucket/data").put(path, path.relative_to(folder / "data").as_posix())
        with local_head(folder, "--num-cpus=2") as started:
            yield started, folder


def run(head: tuple[Head, Path], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of a user who has the head's token."""
    started, folder = head
    words = list(arguments)
    # Before what is after --.
    place = 1 if words[0] == "submit" else 2
    words[place:place] = ["--cluster", started.dashboard]
    command = [sys.executable, "-m", "dfsc_tune", *words]
    done = subprocess.run(
        command, cwd=folder, env=started.environment, capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def wait_for_reports(stored: Store, count: int) -> None:
    deadline = time.monotonic() + 180
    while (stored.read("ledger.jsonl") or b"").count(b"reported") < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_search_in_a_store_is_killed_stopped_resumed_and_fetched(
    head: tuple[Head, Path],
) -> None:
    folder = head[1]
    stored = Store(ADDRESS) / "x"
    killed = run(
        head, "submit", "--detach", "--", "search", "--data", "s3://bucket/data",
        "--category", CATEGORY, "--space", "space.yaml", "--results", ADDRESS, "--name", "x",
    )  # fmt: skip
    assert killed.returncode == 0, killed.stderr
    wait_for_reports(stored, 6)
    os.kill(json.loads(stored.read("driver.json") or b"")["pid"], signal.SIGKILL)
    # As if its machine were lost: nothing of the run is left there.
    before = (stored.read("ledger.jsonl") or b"").decode().splitlines()
    followed = run(head, "job", "logs", killed.stdout.strip())
    assert followed.returncode == 1
    assert "failed" in followed.stderr
    shutil.rmtree(folder / "home" / ".cache" / "dfsc_tune" / "runs")

    stopped = run(head, "submit", "--detach", "--", "resume", str(stored)).stdout.strip()
    wait_for_reports(stored, len(before) + 6)
    told = run(head, "job", "stop", stopped)
    assert told.stdout == f"job {stopped}: stopped\n"
    assert f"resume {stored}" in told.stderr

    done = run(head, "submit", "--", "resume", str(stored))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best of run x" in done.stdout
    assert f"kept in {stored}" in done.stdout
    after = (stored.read("ledger.jsonl") or b"").decode().splitlines()
    assert after[: len(before)] == before

    jobs = json.loads(run(head, "job", "list", "--json").stdout)
    assert [job["status"] for job in jobs] == ["FAILED", "STOPPED", "SUCCEEDED"]
    assert {job["run"] for job in jobs} == {str(stored)}
    fetched = run(head, "job", "fetch", jobs[-1]["job_id"], "--to", "here")
    assert fetched.returncode == 0, fetched.stderr
    trials = results.load(folder / "here" / "x").trials
    assert len(trials) == 3
    assert set(trials["state"]) <= {"complete", "pruned"}
    kept = {name.split("/")[1] for name in stored.files("checkpoints")}
    assert kept == set(trials.loc[trials["state"] == "complete", "trial"])
    texts = [x for x in stored.files() if x.endswith(("yaml", "jsonl", "journal"))]
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert texts
    assert not any(secret in (stored.read(name) or b"") for name in texts)
    # What is not on the way to the end is not there any more either.
    assert stored.find("driver.json") is None


@pytest.mark.slow
def test_nobody_comes_in_without_the_token(head: tuple[Head, Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dfsc_tune", "job", "list", "--cluster", head[0].dashboard],
        env={**head[0].environment, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "refuses this machine" in done.stderr
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in done.stderr
