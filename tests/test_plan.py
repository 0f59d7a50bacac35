"""Plans: paces from records and guesses, hours and money by hand, the comparison with a run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from dfsc_tune.config import ModelConfig, Network, TrialConfig
from dfsc_tune.cost.hindsight import differences, plan_of_run
from dfsc_tune.cost.plan import Plan, Price, best_at_once, estimate
from dfsc_tune.cost.throughput import Throughput, find_throughput, guess_throughput, read_throughput
from dfsc_tune.errors import UserError
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import build_pdn, feature_size, teacher_channels
from dfsc_tune.progress import Progress
from dfsc_tune.results import LEDGER, RunTables, load, write_settings
from dfsc_tune.search.messages import Report
from dfsc_tune.search.study import CategoryStudy
from dfsc_tune.settings import loads
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.training.losses import total_loss
from tests.support.commands import assert_one_sentence, invoke
from tests.support.synthetic_run import dataset, run_settings
from tests.support.trays import CATEGORY, make_tray

TINY = ModelConfig(network="tiny", image_size=128)
# No trial is stopped: 3 trials of 100 steps and 4 reports, exactly.
SPACE = """\
fixed:
  model: {network: tiny, image_size: 128}
  train: {extra_ema_momenta: [0.9]}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
  ema_momentum: {type: float, low: 0.5, high: 0.9}
budget: {num_trials: 3, num_steps: 100, report_interval: 30, grace_period: 100}
resources: {gpus_per_trial: 0.5}
"""


def record(device: str = "cpu", **changes: Any) -> dict[str, Any]:
    """What `dfsc-tune bench` keeps, as far as a plan reads it."""
    figure = {"n": 2, "low": 0.0, "high": 9.0}
    at_once = [(1, 10.0), (2, 16.0)]
    return {
        "hardware": {
            "processor": "Some CPU",
            "num_cpus": 4,
            "gpus": ["Some GPU"] * 2 if device == "cuda" else [],
        },
        "created": "2026-11-23T10:00:00+00:00",
        "device": device,
        "model": {"network": "tiny", "image_size": 128},
        "training": {"seconds_per_step": {"fast": {**figure, "median": 0.11}}},
        "scoring": {
            "num_images": 10,
            "num_ema_momenta": 3,
            "seconds_per_report": {**figure, "median": 6.0},
        },
        "start": {
            "seconds_to_build": {**figure, "median": 1.0},
            "seconds_of_first_steps": {**figure, "median": 0.5},
        },
        "at_once": [
            *({"num_trials": n, "steps_per_second": rate} for n, rate in at_once),
            # Not how a search runs them.
            {"way": "one_process", "num_trials": 2, "steps_per_second": 99.0},
        ],
        **changes,
    }


def keep(folder: Path, name: str = "one", **settings: Any) -> Path:
    path = folder / "benchmarks" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(record(**settings)))
    return path


def parse(text: str = SPACE) -> SearchSpace:
    return loads(text, SearchSpace, "space.yaml")


def plan(gpus: int = 0, text: str = SPACE, num_cpus: int = 1) -> Plan:
    return Plan(parse(text), {CATEGORY: 20}, gpus, 0.5, num_cpus)


@pytest.fixture
def throughput(tmp_path: Path) -> Throughput:
    return read_throughput(keep(tmp_path))


@pytest.fixture
def gpu_throughput(tmp_path: Path) -> Throughput:
    return read_throughput(keep(tmp_path, device="cuda"))


def test_a_record_tells_the_throughput(throughput: Throughput, gpu_throughput: Throughput) -> None:
    assert (throughput.device, throughput.on_gpu, throughput.num_gpus) == ("Some CPU", False, 0)
    assert (gpu_throughput.device, gpu_throughput.on_gpu, gpu_throughput.num_gpus) == (
        "Some GPU",
        True,
        2,
    )
    assert throughput.seconds_per_step(1) == 0.1
    assert throughput.seconds_per_step(2) == pytest.approx(0.125)
    # More than were measured are as fast together as the most that were.
    assert throughput.known(4) == 2
    assert throughput.seconds_per_step(4) == pytest.approx(4 / 16)
    assert throughput.slowdown(2) == pytest.approx(1.25)
    assert throughput.seconds_per_scored_image == pytest.approx(6 / 30)


def test_one_at_a_time_is_always_known(tmp_path: Path) -> None:
    of_four = [{"num_trials": 4, "steps_per_second": 20.0}]
    throughput = read_throughput(keep(tmp_path, at_once=of_four))
    assert throughput.seconds_per_step(1) == pytest.approx(0.11)
    assert throughput.seconds_per_step(4) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "a: {",
        "device: cpu",
        "\x00",
        yaml.safe_dump(record(start=[1])),
        yaml.safe_dump(record(at_once=[1])),
    ],
)
def test_other_files_are_no_records(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="is not a benchmark record, or is damaged"):
        read_throughput(path)


def test_the_newest_record_that_fits_is_taken(tmp_path: Path) -> None:
    assert find_throughput(tmp_path, TINY, on_gpu=False) is None
    keep(tmp_path, "a", created="2026-11-24T00:00:00+00:00")
    keep(tmp_path, "b")
    keep(tmp_path, "c", created="2026-11-25T00:00:00+00:00", device="cuda")
    keep(tmp_path, "d", model={"network": "small", "image_size": 256})
    found = find_throughput(tmp_path, TINY, on_gpu=False)
    assert found is not None
    assert found.source.endswith("a.yaml")
    assert find_throughput(tmp_path, ModelConfig(network="small"), on_gpu=True) is None


def test_a_guess_says_so_and_counts_cores() -> None:
    guess = guess_throughput(TINY, on_gpu=False, num_cpus=4, cpus_per_trial=2)
    assert (guess.source, guess.created) == ("a guess", "")
    # Each trial has cores of its own, so two are twice as fast together.
    assert guess.seconds_per_step(2) == pytest.approx(guess.seconds_per_step(1))
    # On one core, what was measured on one: 37 to 41 ms a step.
    of_one = guess_throughput(TINY, on_gpu=False, num_cpus=1, cpus_per_trial=1)
    assert guess_throughput(TINY, on_gpu=False, num_cpus=1, cpus_per_trial=500) == of_one
    assert 0.03 < of_one.seconds_per_step(1) < 0.06
    on_gpu = guess_throughput(TINY, on_gpu=True, num_cpus=1, cpus_per_trial=2)
    assert on_gpu.seconds_per_step(4) == pytest.approx(4 * on_gpu.seconds_per_step(1))
    found = estimate(plan(), of_one)
    assert any("a guess" in note for note in found.notes)
    assert found.factor == 3


@pytest.mark.parametrize("image_size", [128, 256, 512])
@pytest.mark.parametrize("network", ["tiny", "small", "medium"])
def test_a_guess_counts_the_operations_of_a_step(network: Network, image_size: int) -> None:
    model = ModelConfig(network=network, image_size=image_size)
    guess = guess_throughput(model, on_gpu=True, num_cpus=1, cpus_per_trial=1)
    assert 10e12 * guess.seconds_per_step(1) == pytest.approx(step_flops(model), rel=0.2)


def step_flops(model: ModelConfig) -> int:
    """Floating-point operations of a step with cached teacher features, forward and backward."""
    channels, size = teacher_channels(model.network), feature_size(model.image_size)
    # Without numbers: only shapes count.
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        student, autoencoder = build_pdn(model.network, 2 * channels), build_autoencoder(model)
        images = torch.empty(1, 3, model.image_size, model.image_size)
        features = torch.empty(1, channels, size, size)
        losses = total_loss(
            features, student(images), autoencoder(images), TrialConfig(category="any").loss
        )
        losses.total.backward()
    return int(counter.get_total_flops())


def test_a_plan_needs_no_torch() -> None:
    code = "import sys, dfsc_tune.cost.hindsight; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_hours_and_money_by_hand(throughput: Throughput) -> None:
    found = estimate(plan(), throughput, price=Price(3.6, 1))
    # One core, so one at a time. A report scores 20 images at two momenta, for the trial's own
    # is not among the extra ones.
    seconds = 3 * (1.5 + 100 * 0.1 + 4 * 20 * 2 * 0.2)
    assert found.num_trials == {CATEGORY: 3}
    assert found.steps == found.most_steps == 300
    assert found.wall_hours == pytest.approx(seconds / 3600)
    assert found.device_hours == found.used_device_hours == found.wall_hours
    assert found.cost is not None
    assert found.cost == pytest.approx(3.6 * seconds / 3600)


def test_trials_share_gpus_that_are_paid_until_the_last_ends(gpu_throughput: Throughput) -> None:
    found = estimate(plan(gpus=1), gpu_throughput, price=Price(2.0))
    of_a_trial = 1.5 + 1.25 * (100 * 0.1 + 4 * 20 * 2 * 0.2)
    assert (found.at_once, found.at_once_a_device) == (2, 2)
    assert found.wall_hours == pytest.approx(2 * of_a_trial / 3600)
    # The third trial has the GPU to itself and leaves half of it idle.
    assert found.used_device_hours == pytest.approx(1.5 * of_a_trial / 3600)
    assert found.device_hours == pytest.approx(2 * of_a_trial / 3600)
    assert found.cost is not None
    assert found.cost == pytest.approx(2.0 * found.device_hours)


def test_whole_instances_are_paid() -> None:
    assert [Price(10.0, 4).per_hour_of(gpus) for gpus in (0, 1, 4, 5)] == [10, 10, 10, 20]
    assert Price(10.0).per_hour_of(5) == 50


def test_what_was_not_measured_is_said(gpu_throughput: Throughput) -> None:
    # More trials than are planned do not share.
    assert not estimate(plan(gpus=2), gpu_throughput).notes
    text = SPACE.replace("num_trials: 3", "num_trials: 9").replace("[0.9]", "[0.9, 0.99]")
    crowded = Plan(parse(text), {CATEGORY: 20}, 1, 0.25, 1)
    (note,) = estimate(crowded, gpu_throughput).notes
    assert "4 trials at once were not measured" in note
    assert crowded.num_momenta(CATEGORY) == 3


def test_best_sharing_is_the_searchs(gpu_throughput: Throughput) -> None:
    assert best_at_once(gpu_throughput) == 2
    with pytest.raises(UserError, match="needs a benchmark record"):
        best_at_once(guess_throughput(TINY, True, 1, 1))


def test_a_throughput_of_something_else_is_refused(
    throughput: Throughput, gpu_throughput: Throughput
) -> None:
    other = SPACE.replace("image_size: 128", "image_size: 256")
    with pytest.raises(UserError, match="tiny at 128 pixels, but this search trains tiny at 256"):
        estimate(plan(text=other), throughput)
    with pytest.raises(UserError, match=r"runs on GPUs, and .* was measured on a CPU"):
        estimate(plan(gpus=1), throughput)
    with pytest.raises(UserError, match="give --price-per-instance-hour"):
        estimate(plan(), throughput, price=Price(1.0))
    mixed = SPACE + "categories: {box: {fixed: {model: {network: small}}}}\n"
    apart = Plan(parse(mixed), {CATEGORY: 20, "box": 20}, 0, 0.0, 1)
    with pytest.raises(UserError, match="tray and box differ in network or image size"):
        estimate(apart, throughput)


@pytest.mark.parametrize("num_trials", [2, 20])
def test_a_grid_has_as_many_trials_as_its_study_suggests(num_trials: int) -> None:
    text = """\
parameters:
  margin: {type: categorical, choices: [0.0, 0.4, 1.0]}
  alpha: {type: categorical, choices: [1.0, 2.0]}
sampler: grid
budget: {num_trials: NUM, num_steps: 100, report_interval: 30, grace_period: 100}
categories: {box: {parameters: {margin: {type: categorical, choices: [0.0, 2.0]}}}}
""".replace("NUM", str(num_trials))
    planned = Plan(parse(text), {CATEGORY: 1, "box": 1}, 0, 0.0, 1).num_trials
    for category, expected in planned.items():
        of_category = parse(text).for_category(category)
        study = CategoryStudy(of_category, name="run", num_trials=num_trials)
        assert expected == study.num_expected
    assert planned == ({CATEGORY: 2, "box": 2} if num_trials == 2 else {CATEGORY: 6, "box": 5})


def finished_run(folder: Path, seconds: float = 30.0, wall_seconds: float = 100.0) -> Path:
    """A run of SPACE on one core, whose trials took `seconds` each."""
    folder.mkdir(parents=True)
    settings = {
        "space": parse().model_dump(mode="json"),
        "gpus": None,
        "gpus_per_trial": 0.0,
        "device": "auto",
        "address": None,
        "hardware": {"platform": "os", "processor": "one", "num_cpus": 1, "gpus": []},
        "created": "2026-11-23T10:00:00+00:00",
        "datasets": {CATEGORY: dataset(validation=6, selection={"good": 4, "logical": 10})},
    }
    write_settings(folder, run_settings((CATEGORY,), **settings))
    tables = RunTables(folder)
    config = TrialConfig(category=CATEGORY)
    aurocs = dict.fromkeys(("auroc_logical", "auroc_structural", "auroc_mean"), 0.5)
    for name in "abc":
        tables.start(name, config, "sampler")
        tables.report(name, Progress(100, 0.5, {0.99: dict(aurocs)}, {}, seconds))
        tables.end(name, "complete")
    tables.write()
    report = Report(Progress(100, 0.5, {0.99: dict(aurocs)}, {}, seconds)).to_plain()
    events = [
        {"event": "began", "at": 1e9},
        {"event": "reported", "trial": "0001", **report, "at": 1e9 + wall_seconds},
        {"event": "published", "num_ended": 3, "at": 1e9 + 2 * wall_seconds},
    ]
    (folder / LEDGER).write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_a_run_is_compared_with_its_plan(tmp_path: Path, throughput: Throughput) -> None:
    run = load(finished_run(tmp_path / "run"))
    planned = plan_of_run(run)
    assert planned == Plan(parse(), {CATEGORY: 20}, gpus=0, gpus_per_trial=0.0, num_cpus=1)
    found = {row.quantity: row for row in differences(estimate(planned, throughput), run)}
    of_a_trial = 1.5 + 100 * 0.1 + 4 * 20 * 2 * 0.2
    assert found["trials"].off == found["steps"].off == 0
    assert found["hours of all trials"].off == pytest.approx(of_a_trial / 30 - 1)
    assert found["hours of wall time"].actual == pytest.approx(100 / 3600)
    assert found["hours of wall time"].off == pytest.approx(3 * of_a_trial / 100 - 1)
    assert found["seconds a step, scoring included"].actual == pytest.approx(0.3)


def test_plan_prints_what_a_search_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_tray(Path("data"))
    Path("space.yaml").write_text(SPACE)
    keep(Path("results"), device="cuda")
    asked = ("plan", "--category", "all", "--data", "data", "--space", "space.yaml")
    result = invoke(*asked, "--gpus", "1", "--price-per-gpu-hour", "2")
    assert result.exit_code == 0, result.output
    for text in ("3 (3 tray)", "2 on 1 GPU, 2 a device", "GPU-hours", "cost", "Some GPU"):
        assert text in result.stdout
    for text in ("results/benchmarks/one.yaml", "PDN tiny at 128 pixels"):
        assert text in result.stdout
    as_json = invoke(*asked, "--gpus", "1", "--trials-per-gpu", "auto", "--json")
    found = json.loads(as_json.stdout)
    assert found["at_once"] == 2
    assert found["steps"] == 300
    assert found["cost"] is None
    # Validation 3, and half of each kind's 4: 2 + 2 + 2.
    assert found["seconds_per_report"][CATEGORY] == pytest.approx(9 * 2 * 0.2 * 1.25)
    # Without a record of a CPU: a guess.
    guessed = invoke(*asked, "--gpus", "0")
    assert "throughput: a guess" in guessed.stdout
    minutes = re.search(r"wall time +(\S+) \((\S+) to (\S+)\) minutes", guessed.stdout)
    assert minutes is not None
    mean, low, high = map(float, minutes.groups())
    assert (3 * low, high / 3) == pytest.approx((mean, mean), rel=0.02)
    assert "measure it: dfsc-tune bench --network tiny --image-size 128" in guessed.stdout


@pytest.mark.parametrize(
    ("objective", "num_scored"),
    # 30 validation images, and of 180 test images all or half; or 485 anomalies, of which three
    # reports of four look at a quarter.
    [("oracle", 30 + 180), ("holdout", 30 + 90), ("synthetic", 30 + 212)],
)
def test_built_in_data_are_planned_without_being_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, num_scored: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("space.yaml").write_text(SPACE)
    record_file = keep(Path("results"))
    asked = ("plan", "--category", "pushpins", "--space", "space.yaml", "--gpus", "0", "--json")
    result = invoke(*asked, "--objective", objective)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    seconds = (
        num_scored * 2 * 0.2 * read_throughput(record_file).slowdown(found["at_once_a_device"])
    )
    assert found["seconds_per_report"]["pushpins"] == pytest.approx(seconds)
    assert not (tmp_path / "cache").exists()


def test_plan_says_how_far_a_run_was_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finished_run(Path("results") / "first")
    keep(Path("results"))
    result = invoke("plan", "first")
    assert result.exit_code == 0, result.output
    for text in ("steps", "hours of wall time", "how far off", "results/benchmarks/one.yaml"):
        assert text in result.stdout
    found = json.loads(invoke("plan", "first", "--json").stdout)
    assert {row["quantity"]: row["off"] for row in found["differences"]}["steps"] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "give --category"),
        (["nope"], "no run 'nope'"),
        (["first", "--category", "tray"], "not both"),
        (["--category", "nope"], "no built-in category 'nope'"),
        (["--category", "pushpins", "--space", "nope"], "no search space 'nope'"),
        (["--category", "pushpins", "--benchmark", "nope.yaml"], "cannot read nope.yaml"),
        (
            ["--category", "pushpins", "--space", "default", "--benchmark", "record.yaml"],
            "tiny at 128 pixels, but this search trains small at 256",
        ),
        (["--category", "pushpins", "--gpus-per-instance", "8"], "--price-per-instance-hour"),
        (
            [
                *("--category", "pushpins", "--price-per-gpu-hour", "1"),
                *("--price-per-instance-hour", "1"),
            ],
            "not both",
        ),
    ],
)
def test_plan_refuses_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    keep(tmp_path).rename("record.yaml")
    finished_run(Path("results") / "first")
    assert_one_sentence(invoke("plan", *arguments), text)
