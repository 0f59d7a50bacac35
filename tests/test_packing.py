"""Trials at once: threads are shared, memory bounds their number, a failure keeps what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfsc_tune.bench import packing as packing_module
from dfsc_tune.bench.packing import Packing, measure_packing, mps_runs
from dfsc_tune.bench.request import BenchRequest
from dfsc_tune.bench.sharing import best_count
from dfsc_tune.config import ModelConfig
from dfsc_tune.errors import UserError

TINY = ModelConfig(network="tiny", image_size=128, teacher="random")
REQUEST = BenchRequest(TINY, "cpu", rounds=1, seconds_per_round=0.05)
NOWHERE = BenchRequest(TINY, "nowhere", rounds=1, seconds_per_round=0.05)


def silent(text: str) -> None: ...


def measured(request: BenchRequest, count: int, num_threads: int) -> Packing:
    """In the place of a measurement: each trial takes 10 bytes."""
    return Packing(count, num_threads // count, 1.0, 10)


def test_the_fewest_trials_win_that_more_do_not_beat() -> None:
    assert best_count({1: 10, 2: 19, 4: 30, 8: 31}) == 4
    assert best_count({2: 9, 1: 10}) == 1
    assert best_count({1: 10, 2: 10.2, 4: 20}) == 4


@pytest.mark.slow
def test_trials_share_the_threads() -> None:
    found = measure_packing(REQUEST, (1, 2), 2, silent, silent)
    assert [(x.num_trials, x.threads_per_trial) for x in found] == [(1, 2), (2, 1)]
    assert all(x.steps_per_second > 0 and x.peak_bytes_per_trial == 0 for x in found)


@pytest.mark.slow
def test_a_trial_that_fails_when_measured_is_named() -> None:
    with pytest.raises(UserError, match="2 trials at once failed on nowhere"):
        measure_packing(NOWHERE, (2,), 2, silent, silent)


def test_more_than_memory_holds_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing_module, "_measure", measured)
    monkeypatch.setattr(packing_module, "_fits", lambda num_bytes, request: num_bytes <= 40)
    found = measure_packing(REQUEST, (1, 2, 4), 8, silent, silent, data_bytes=10)
    assert [x.num_trials for x in found] == [1, 2]


def test_a_failure_is_noted_and_what_was_measured_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: BenchRequest, count: int, num_threads: int) -> Packing:
        if count == 4:
            raise UserError("out of memory")
        return measured(request, count, num_threads)

    monkeypatch.setattr(packing_module, "_measure", fail)
    notes: list[str] = []
    found = measure_packing(REQUEST, (1, 2, 4, 8), 8, silent, notes.append)
    assert [x.num_trials for x in found] == [1, 2]
    assert notes == ["out of memory"]


def test_mps_is_seen_by_its_control_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps_runs()
    (tmp_path / "control").touch()
    assert mps_runs()
