"""The benchmark: the usual loop is the same training, counts are METHOD's, records are complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from dfsc_tune.bench import record, request, steps
from dfsc_tune.bench.request import Figure
from dfsc_tune.bench.usual import ImageFiles, UsualLoop
from dfsc_tune.config import ModelConfig, TrialConfig
from dfsc_tune.cost.throughput import read_throughput
from dfsc_tune.errors import UserError
from dfsc_tune.models.pdn import build_pdn, normalize_images
from dfsc_tune.models.teacher import Teacher
from dfsc_tune.training.losses import total_loss
from dfsc_tune.training.prepare import CategoryData
from tests.support.commands import invoke


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


def test_a_figure_is_median_and_spread() -> None:
    assert Figure.of([3.0, 1.0, 2.0]) == Figure(3, 2.0, 1.0, 3.0)


@pytest.mark.slow
def test_bench_prints_and_keeps_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real sizes and numbers take minutes.
    repeated = record._repeated
    monkeypatch.setattr(record, "_repeated", lambda images, count: repeated(images, count // 10))
    for module in (request, steps):
        monkeypatch.setattr(module, "FILE_SIZE", (160, 110))
    arguments = "bench --network tiny --image-size 128 --rounds 2 --seconds 0.05 --at-once 1,2"
    result = invoke(*arguments.split(), "--threads", "1", "--results", str(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (file,) = (tmp_path / "benchmarks").iterdir()
    assert yaml.safe_load(file.read_text()) == found
    ways = found["training"]["seconds_per_step"]
    assert list(ways) == ["usual", "plain", "fast"]
    assert all(x["n"] == 2 and 0 < x["low"] <= x["median"] <= x["high"] for x in ways.values())
    assert found["notes"] == []
    assert not found["mps"]
    assert found["scoring"]["num_images"] == 216
    at_once = found["at_once"]
    assert [(x["num_trials"], x["threads_per_trial"]) for x in at_once] == [(1, 1), (2, 1)]
    assert all(x["steps_per_second"] > 0 and x["peak_bytes_per_trial"] == 0 for x in at_once)
    assert found["versions"]["torch"] == torch.__version__
    assert read_throughput(file).steps_per_second.keys() == {1, 2}


@pytest.mark.parametrize("text", ["2,1", "1,1", "0", "some"])
def test_bench_refuses_other_numbers(text: str) -> None:
    result = invoke("bench", "--at-once", text, "--device", "cpu")
    assert result.exit_code == 2
    assert "--at-once takes" in result.stderr


def test_bench_looks_whether_it_may_write_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "benchmark", lambda *_: pytest.fail("it measured"))
    (tmp_path / "file").write_text("")
    result = invoke("bench", "--results", str(tmp_path / "file"))
    assert result.exit_code == 2
    assert "cannot write to the folder" in result.stderr


def test_what_was_measured_is_kept_where_no_trials_fit_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figure = Figure.of([1.0])
    training = {"seconds_per_step": {"fast": figure}}

    def fails(*args: object) -> None:
        raise UserError("64 trials at once failed")

    for name, measure in (
        ("measure_training", lambda *args: training),
        ("measure_scoring", lambda *args: {"seconds_per_report": figure}),
        ("measure_start", lambda *args: {"seconds_to_build": figure}),
        ("measure_packing", fails),
    ):
        monkeypatch.setattr(record, name, measure)
    notes: list[str] = []
    asked = request.BenchRequest(ModelConfig(network="tiny", image_size=128), "cpu", 1, 0.1)
    found = record.benchmark(asked, 1, [64], lambda text: None, notes.append)
    assert found["training"] == training
    assert found["at_once"] == []
    assert notes == ["64 trials at once failed"]
