"""The benchmark: the usual loop is the same training, counts are METHOD's, records are complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from dfsc_tune import bench
from dfsc_tune import packing as packing_module
from dfsc_tune.bench import BenchRequest, Figure, step_bytes, step_flops
from dfsc_tune.cli import app
from dfsc_tune.config import ModelConfig, TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.losses import total_loss
from dfsc_tune.models.pdn import build_pdn, normalize_images
from dfsc_tune.models.teacher import Teacher
from dfsc_tune.packing import Packing, best_packing, measure_packing
from dfsc_tune.prepare import CategoryData
from dfsc_tune.usual import ImageFiles, UsualLoop

TINY = ModelConfig(network="tiny", image_size=128, teacher="random")
REQUEST = BenchRequest(TINY, "cpu", rounds=2, seconds_per_round=0.05, num_scored=(4, 4))


def packing(num_trials: int, rate: float) -> Packing:
    return Packing(num_trials, 1, rate, 0)


def test_the_usual_loop_has_our_loss(
    trial_config: TrialConfig, category_data: CategoryData
) -> None:
    paths = [record.path for record in category_data.category.train]
    loop = UsualLoop(trial_config, paths, Teacher(build_pdn("tiny", 96)))
    torch.manual_seed(0)
    teacher, autoencoder = torch.randn(2, 1, 96, 24, 24)
    student = torch.randn(1, 192, 24, 24)
    ours = total_loss(teacher, student, autoencoder, trial_config.loss).total
    torch.testing.assert_close(loop._loss(teacher, student, autoencoder), ours)
    # It goes on after its last image, and learns.
    losses = [loop.step() for _ in range(2 * len(paths) + 1)]
    assert losses[-1] < losses[0]


def test_the_usual_loop_reads_the_images_that_we_do(category_data: CategoryData) -> None:
    train = category_data.trial.train
    files = ImageFiles([record.path for record in train.records], 128)
    ours = normalize_images(torch.from_numpy(train.pixels[:1]))[0]
    torch.testing.assert_close(files[0], ours, atol=0.02, rtol=0)
    assert len(files) == len(train)


def test_flops_are_those_of_the_method() -> None:
    # METHOD: student 20.2 and autoencoder 2.4 GMAC, forward and twice backward; the first layers
    # need no gradient of the image, which METHOD's 0.136 TFLOP leaves out of account.
    assert step_flops(ModelConfig()) == pytest.approx(0.136e12, rel=0.02)


def test_bytes_grow_with_what_is_kept() -> None:
    one = BenchRequest(TINY, "cpu", 1, 1, ema_momenta=(0.9,))
    num_parameters = sum(x.numel() for x in build_pdn("tiny", 192).parameters())
    assert step_bytes(REQUEST) - step_bytes(one) == 2 * 4 * 2 * num_parameters


def test_a_figure_is_median_and_spread() -> None:
    assert Figure.of([3.0, 1.0, 2.0]) == Figure(3, 2.0, 1.0, 3.0)


def test_the_fewest_trials_win_that_more_do_not_beat() -> None:
    rising = [packing(1, 10), packing(2, 19), packing(4, 30), packing(8, 31)]
    assert best_packing(rising).num_trials == 4
    assert best_packing([packing(1, 10), packing(2, 9)]).num_trials == 1
    assert best_packing([packing(1, 10), packing(2, 10.2), packing(4, 20)]).num_trials == 4


def test_trials_at_once_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        packing_module, "_measure", lambda _, count, threads: Packing(count, threads, 1.0, 0)
    )
    found = measure_packing(REQUEST, (1, 2, 8), num_threads=4, progress=lambda text: None)
    assert [x.threads_per_trial for x in found] == [4, 2, 1]


@pytest.mark.slow
def test_a_trial_that_fails_when_measured_is_named() -> None:
    request = BenchRequest(TINY, "nowhere", rounds=1, seconds_per_round=0.05)
    with pytest.raises(UserError, match="2 trials at once failed on nowhere"):
        measure_packing(request, (2,), num_threads=2, progress=lambda text: None)


@pytest.mark.slow
def test_bench_prints_and_keeps_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real sizes and numbers take a minute.
    repeated = bench._repeated
    monkeypatch.setattr(bench, "_repeated", lambda images, count: repeated(images, count // 10))
    monkeypatch.setattr(bench, "_FILE_SIZE", (160, 110))
    monkeypatch.setattr(bench, "_PEAK_SIZES", (1024,))
    arguments = "bench --network tiny --image-size 128 --rounds 2 --seconds 0.05 --at-once 1,2"
    result = CliRunner().invoke(
        app, [*arguments.split(), "--threads", "1", "--results", str(tmp_path), "--json"]
    )
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    (file,) = (tmp_path / "benchmarks").iterdir()
    assert yaml.safe_load(file.read_text()) == record
    ways = record["training"]["seconds_per_step"]
    assert {"usual", "plain", "fast", "fast_float32"} <= ways.keys()
    assert all(x["n"] == 2 and 0 < x["low"] <= x["median"] <= x["high"] for x in ways.values())
    assert 0 < record["training"]["share_of_compute_peak"] < 1
    assert record["scoring"]["num_images"] == 216
    at_once = record["at_once"]
    assert [(x["num_trials"], x["threads_per_trial"]) for x in at_once] == [(1, 1), (2, 1)]
    assert all(x["steps_per_second"] > 0 and x["peak_bytes_per_trial"] == 0 for x in at_once)
    assert record["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("text", ["2,1", "1,1", "0", "some"])
def test_bench_refuses_other_numbers(text: str) -> None:
    result = CliRunner().invoke(app, ["bench", "--at-once", text, "--device", "cpu"])
    assert result.exit_code == 2
    assert "--at-once takes" in result.stderr


def test_bench_looks_whether_it_may_write_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "benchmark", lambda *_: pytest.fail("it measured"))
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["bench", "--results", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "cannot write to the folder" in result.stderr
