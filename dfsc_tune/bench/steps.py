"""How long a step takes: the usual loop beside plain, fast, each switch alone, and compiled."""

from __future__ import annotations

import functools
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from dfsc_tune.bench.limits import measure_bandwidth, measure_peak_flops, step_bytes, step_flops
from dfsc_tune.bench.request import FAST, FILE_SIZE, BenchRequest, Figure, generated_data, timed
from dfsc_tune.bench.usual import UsualLoop
from dfsc_tune.config import PLAIN, SpeedConfig
from dfsc_tune.errors import first_line
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.models.speed import compute_dtype
from dfsc_tune.models.teacher import Teacher
from dfsc_tune.training.train import Training

_NUM_FILES = 8
_WARM_UP_STEPS = 5
_COMPILED = "fast_compiled"
_ESSENTIAL = ("usual", "fast")
_ON_GPU = {
    "fast_eager": FAST.model_copy(update={"cuda_graph": False}),
    "fast_10_steps_a_launch": FAST.model_copy(update={"steps_per_launch": 10}),
}
VARIANTS: dict[str, SpeedConfig] = {
    "plain": PLAIN,
    "fast": FAST,
    "fast_float32": FAST.model_copy(update={"precision": "float32"}),
    "fast_channels_first": FAST.model_copy(update={"channels_last": False}),
    "fast_float32_features": FAST.model_copy(update={"half_features": False}),
}
"""Our ways to take a step: all switches off, all on, and each one off alone."""


@dataclass(frozen=True)
class _Way:
    """A way to take steps."""

    run: Callable[[int], object]
    """Takes a number of steps."""
    steps_per_launch: int = 1
    """Only multiples of them are measured."""

    @classmethod
    def of(cls, training: Training) -> _Way:
        return cls(functools.partial(_train, training), training.config.speed.steps_per_launch)


def measure_training(
    request: BenchRequest, progress: Callable[[str], None], note: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds per step of the usual loop and of each variant, and what they are shares of.

    Args:
        request: what to measure.
        progress: told what is being measured.
        note: told what failed and was left out, as compiling where there is no compiler.
    """
    with _image_files() as paths:
        teacher = Teacher(build_pdn(request.model.network, teacher_channels(request.model.network)))
        usual = UsualLoop(request.config(PLAIN), paths, teacher, request.device)
        ways = {"usual": _Way(lambda count: [usual.step() for _ in range(count)])}
        for name, speed in (VARIANTS | (_ON_GPU if request.on_gpu else {})).items():
            ways[name] = _Way.of(_training(request, speed))
        compiled = _training(request, FAST)
        compiled.compile()
        ways[_COMPILED] = _Way.of(compiled)
        seconds, first = _take_turns(ways, request, progress, note)
    figures = {name: Figure.of(values) for name, values in seconds.items()}
    ratio = [a / b for a, b in zip(seconds["usual"], seconds["fast"], strict=True)]
    peak_flops = measure_peak_flops(request.device, compute_dtype(FAST, request.device))
    bandwidth = measure_bandwidth(request.device)
    flops, num_bytes = step_flops(request.model), step_bytes(request)
    return {
        "seconds_per_step": figures,
        "usual_over_fast": Figure.of(ratio),
        "compiling": _compiling(figures, first),
        "flops_per_step": flops,
        "bytes_per_step": num_bytes,
        "peak_flops_per_second": peak_flops,
        "peak_bytes_per_second": bandwidth,
        "share_of_compute_peak": flops / figures["fast"].median / peak_flops,
        "share_of_bandwidth": num_bytes / figures["fast"].median / bandwidth,
    }


def _compiling(
    figures: Mapping[str, Figure], first: Mapping[str, float]
) -> dict[str, float | int | None] | None:
    """What compiling took and brought; None where it failed."""
    if _COMPILED not in figures:
        return None
    before, after = figures["fast"].median, figures[_COMPILED].median
    return {
        "seconds_of_first_step": first[_COMPILED],
        "steps_to_pay": steps_to_pay(first[_COMPILED], before, after),
    }


def steps_to_pay(seconds_to_compile: float, before: float, after: float) -> int | None:
    """Steps after which compiling has paid for itself; None if it never does.

    Args:
        seconds_to_compile: once.
        before: seconds per step without it.
        after: seconds per step with it.
    """
    return math.ceil(seconds_to_compile / (before - after)) if after < before else None


def _training(request: BenchRequest, speed: SpeedConfig) -> Training:
    return Training(request.config(speed), generated_data(request, speed))


def _take_turns(
    ways: Mapping[str, _Way],
    request: BenchRequest,
    progress: Callable[[str], None],
    note: Callable[[str], None],
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Of each way that works: its seconds per step in each round; the seconds of its first step."""
    counts, first = {}, {}
    for name, way in ways.items():
        progress(f"warming up {name}")
        try:
            first[name], counts[name] = _warm_up(way, request)
        except RuntimeError as error:
            if name in _ESSENTIAL:
                raise
            note(f"{name}: {type(error).__name__}: {first_line(error)}")
    seconds: dict[str, list[float]] = {name: [] for name in counts}
    for number in range(request.rounds):
        progress(f"training, round {number + 1} of {request.rounds}")
        for name, count in counts.items():
            total = timed(functools.partial(ways[name].run, count), request.device)
            seconds[name].append(total / count)
    return seconds, first


def _warm_up(way: _Way, request: BenchRequest) -> tuple[float, int]:
    """Seconds of the first step, and how many steps a round will have."""
    # Compiling shall find nothing kept from earlier times, and warns of that and of much else.
    # PyTorch documents `patch`, but its stubs leave it out.
    without_caches = cast(Any, torch.compiler.config).patch(force_disable_caches=True)
    with without_caches, warnings.catch_warnings(action="ignore"):
        first = timed(functools.partial(way.run, 1), request.device)
    way.run(_WARM_UP_STEPS)
    # A GPU records the steps of a launch when it first takes them.
    way.run(way.steps_per_launch)
    launch = timed(functools.partial(way.run, way.steps_per_launch), request.device)
    seconds_per_step = launch / way.steps_per_launch
    most = request.num_steps // (request.rounds + 1)
    count = min(request.seconds_per_round / seconds_per_step, most)
    return first, max(1, round(count / way.steps_per_launch)) * way.steps_per_launch


def _train(training: Training, count: int) -> None:
    training.run(training.step + count)


@contextmanager
def _image_files() -> Iterator[list[Path]]:
    """Files of generated images of about MVTec LOCO's size, smooth as photographs are."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="dfsc_tune_") as folder:
        paths = [Path(folder) / f"{index}.png" for index in range(_NUM_FILES)]
        for path in paths:
            coarse = generator.integers(0, 256, (69, 100, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(FILE_SIZE, Image.Resampling.BICUBIC).save(path)
        yield paths
