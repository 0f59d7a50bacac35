"""Trials at once: threads are shared, turns change nothing, MPS is private and always ended."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dfsc_tune.bench import packing as packing_module
from dfsc_tune.bench.mps import check_mps_in_use, private_mps
from dfsc_tune.bench.packing import (
    ONE_PROCESS,
    PROCESSES,
    PROCESSES_WITH_MPS,
    Packing,
    best_packing,
    measure_packing,
    packing_ways,
    take_turns,
)
from dfsc_tune.bench.request import FAST, BenchRequest, generated_data, synchronize
from dfsc_tune.config import ModelConfig
from dfsc_tune.errors import UserError
from dfsc_tune.training.train import Training

TINY = ModelConfig(network="tiny", image_size=128, teacher="random")
REQUEST = BenchRequest(TINY, "cpu", rounds=1, seconds_per_round=0.05)
NOWHERE = BenchRequest(TINY, "nowhere", rounds=1, seconds_per_round=0.05)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]
FOLDERS = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
CONTROL = """\
#!{python}
import json, os, sys
told = sys.stdin.read()
call = [sys.argv[1:], told.strip(), *(os.environ.get(x) for x in {names})]
with open({log!r}, "a") as log:
    log.write(json.dumps(call) + "\\n")
if told.startswith("get_server_list"):
    print({servers!r})
sys.exit({status})
"""


def packing(num_trials: int, rate: float, way: str = PROCESSES) -> Packing:
    return Packing(way, num_trials, 1, rate, 0)


def silent(text: str) -> None: ...


def test_the_fewest_trials_win_that_more_do_not_beat() -> None:
    rising = [packing(1, 10), packing(2, 19), packing(4, 30), packing(8, 31)]
    assert best_packing(rising).num_trials == 4
    assert best_packing([packing(1, 10), packing(2, 9)]).num_trials == 1
    assert best_packing([packing(1, 10), packing(2, 10.2), packing(4, 20)]).num_trials == 4


def test_processes_share_the_threads_and_turns_have_them_all() -> None:
    for way in (PROCESSES, PROCESSES_WITH_MPS):
        assert [packing_module._shares(way, n, 4) for n in (1, 2, 8)] == [(1, 4), (2, 2), (8, 1)]
    assert [packing_module._shares(ONE_PROCESS, n, 4) for n in (1, 2, 8)] == [(1, 4)] * 3


@pytest.mark.slow
def test_a_trial_that_fails_when_measured_is_named() -> None:
    with pytest.raises(UserError, match="2 trials at once failed on nowhere"):
        measure_packing(NOWHERE, (2,), 2, silent)


def test_more_than_memory_holds_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        packing_module, "_measure", lambda _, way, count, threads: packing(count, 1.0, way)
    )
    monkeypatch.setattr(packing_module, "_fits", lambda num_bytes, device: num_bytes <= 20)
    ways = (PROCESSES, ONE_PROCESS)
    found = measure_packing(REQUEST, (1, 2, 4), 1, silent, data_bytes=10, ways=ways)
    assert [(x.way, x.num_trials) for x in found] == [
        (PROCESSES, 1),
        (PROCESSES, 2),
        (ONE_PROCESS, 1),
        (ONE_PROCESS, 2),
    ]


def test_what_fails_is_noted_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: BenchRequest, way: str, count: int, num_threads: int) -> Packing:
        if way == PROCESSES_WITH_MPS:
            raise UserError("no server")
        return packing(count, 1.0, way)

    monkeypatch.setattr(packing_module, "_measure", fail)
    notes: list[str] = []
    ways = (PROCESSES, PROCESSES_WITH_MPS)
    found = measure_packing(REQUEST, (1,), 1, silent, ways=ways, note=notes.append)
    assert [x.way for x in found] == [PROCESSES]
    assert notes == ["processes_with_mps: no server"]


@pytest.mark.parametrize("device", DEVICES)
def test_turns_change_nothing(device: str) -> None:
    """Trainings that take turns end as each does alone: bit for bit on a CPU."""
    given = BenchRequest(TINY, device, rounds=1, seconds_per_round=1)
    configs = [given.config(FAST).model_copy(update={"seed": seed}) for seed in (0, 1)]
    data = generated_data(given, FAST)
    together = [Training(config, data) for config in configs]
    alone = [Training(config, data) for config in configs]
    streams = [torch.cuda.Stream() if given.on_gpu else None for _ in configs]
    synchronize(device)
    take_turns(together, streams)
    take_turns(together, streams)
    synchronize(device)
    for training, other in zip(alone, together, strict=True):
        training.run(20)
        losses, expected = other.run(21)["total"], training.run(21)["total"]
        assert losses == (pytest.approx(expected, rel=2e-2) if given.on_gpu else expected)


class Control:
    """A program in the place of MPS's control, and what it was told."""

    def __init__(self, folder: Path, servers: str = "4242", status: int = 0) -> None:
        self._log = folder / "told.jsonl"
        program = folder / "nvidia-cuda-mps-control"
        program.write_text(
            CONTROL.format(
                python=sys.executable,
                names=(*FOLDERS, "CUDA_VISIBLE_DEVICES"),
                log=str(self._log),
                servers=servers,
                status=status,
            )
        )
        program.chmod(0o755)

    @property
    def told(self) -> list[list[Any]]:
        """Of each call: arguments, standard input, MPS's folders, GPUs made visible."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture(autouse=True)
def _programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_mps_is_a_way_of_gpus_that_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert packing_ways("cuda") == (PROCESSES, ONE_PROCESS)
    Control(tmp_path)
    assert packing_ways("cuda") == (PROCESSES, PROCESSES_WITH_MPS, ONE_PROCESS)
    assert packing_ways("cpu") == (PROCESSES, ONE_PROCESS)


@pytest.mark.slow
def test_processes_are_measured_with_a_daemon_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control(tmp_path)
    monkeypatch.setenv(FOLDERS[0], "/somebody/elses")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    (found,) = measure_packing(REQUEST, (1,), 1, silent, ways=(PROCESSES_WITH_MPS,))
    assert (found.way, found.num_trials) == (PROCESSES_WITH_MPS, 1)
    assert [call[:2] for call in control.told] == [
        [["-d"], ""],
        [[], "get_server_list"],
        [[], "quit"],
    ]
    ((pipe, log, visible),) = {tuple(call[2:]) for call in control.told}
    assert pipe != log
    assert visible is None
    assert not Path(pipe).exists()
    assert os.environ[FOLDERS[0]] == "/somebody/elses"
    assert FOLDERS[1] not in os.environ


def test_mps_ends_whatever_happens_within(tmp_path: Path) -> None:
    control = Control(tmp_path)
    with pytest.raises(KeyboardInterrupt), private_mps():
        raise KeyboardInterrupt
    assert [call[:2] for call in control.told] == [[["-d"], ""], [[], "quit"]]


def test_mps_that_does_not_start_is_told_to_end_too(tmp_path: Path) -> None:
    control = Control(tmp_path, status=1)
    with pytest.raises(UserError, match="MPS does not work here"), private_mps():
        pytest.fail("it went on")
    assert [call[:2] for call in control.told] == [[["-d"], ""], [[], "quit"]]
    assert FOLDERS[0] not in os.environ


def test_figures_without_mps_do_not_count_as_with_it(tmp_path: Path) -> None:
    Control(tmp_path, servers="")
    with pytest.raises(UserError, match="no process used MPS"), private_mps():
        check_mps_in_use()
