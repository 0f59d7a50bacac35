"""How long a step takes: the usual loop beside plain, fast, each switch alone, and compiled."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from dfsc_tune.bench.limits import measure_bandwidth, measure_peak_flops, step_bytes, step_flops
from dfsc_tune.bench.request import (
    FAST,
    FILE_SIZE,
    BenchRequest,
    Figure,
    generated_data,
    timed,
)
from dfsc_tune.bench.usual import UsualLoop
from dfsc_tune.config import PLAIN, SpeedConfig
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.models.teacher import Teacher
from dfsc_tune.speed import compute_dtype
from dfsc_tune.train import Training

_NUM_FILES = 8
_WARM_UP_STEPS = 5
_COMPILED = "fast_compiled"
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
    at_once: int = 1
    """How many it is made to take at once: only multiples of them are measured."""

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
        note: told if compiling failed, which is then left out.
    """
    with _image_files() as paths:
        teacher = Teacher(build_pdn(request.model.network, teacher_channels(request.model.network)))
        usual = UsualLoop(request.config(PLAIN), paths, teacher, request.device)
        ways = {"usual": _Way(lambda count: [usual.step() for _ in range(count)])}
        for name, speed in (VARIANTS | (_ON_GPU if request.on_gpu else {})).items():
            ways[name] = _Way.of(_training(request, speed))
        progress("compiling")
        compiled = _training(request, FAST)
        seconds_to_compile = _compile(compiled, note)
        if seconds_to_compile is not None:
            ways[_COMPILED] = _Way.of(compiled)
        seconds = _take_turns(ways, request, progress)
    figures = {name: Figure.of(values) for name, values in seconds.items()}
    ratio = [a / b for a, b in zip(seconds["usual"], seconds["fast"], strict=True)]
    peak_flops = measure_peak_flops(request.device, compute_dtype(FAST, request.device))
    bandwidth = measure_bandwidth(request.device)
    flops, num_bytes = step_flops(request.model), step_bytes(request)
    return {
        "seconds_per_step": figures,
        "usual_over_fast": Figure.of(ratio),
        "seconds_to_compile": seconds_to_compile,
        "steps_to_pay_compiling": seconds_to_compile
        and steps_to_pay(seconds_to_compile, figures["fast"].median, figures[_COMPILED].median),
        "flops_per_step": flops,
        "bytes_per_step": num_bytes,
        "peak_flops_per_second": peak_flops,
        "peak_bytes_per_second": bandwidth,
        "share_of_compute_peak": flops / figures["fast"].median / peak_flops,
        "share_of_bandwidth": num_bytes / figures["fast"].median / bandwidth,
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


def _compile(training: Training, note: Callable[[str], None]) -> float | None:
    """Seconds of a first step that compiles, by nothing kept from earlier times; None if it fails.

    It fails where there is no compiler, or where PyTorch's own cannot do these networks.
    """
    training.compile()
    try:
        # PyTorch documents `patch`, but its stubs leave it out.
        with cast(Any, torch.compiler.config).patch(force_disable_caches=True):
            return timed(functools.partial(training.run, 1), training.data.device)
    except RuntimeError as error:
        first_line = (str(error).splitlines() or [""])[0]
        note(f"{_COMPILED}: {type(error).__name__}: {first_line}")
        return None


def _take_turns(
    ways: Mapping[str, _Way], request: BenchRequest, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds per step of each way in each round."""
    counts = {}
    for name, way in ways.items():
        progress(f"warming up {name}")
        way.run(_WARM_UP_STEPS)
        # The first time, a GPU records the steps that it takes at once.
        way.run(way.at_once)
        once = timed(functools.partial(way.run, way.at_once), request.device) / way.at_once
        most = request.num_steps // (request.rounds + 1)
        count = min(request.seconds_per_round / once, most)
        counts[name] = max(1, round(count / way.at_once)) * way.at_once
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(request.rounds):
        progress(f"training, round {number + 1} of {request.rounds}")
        for name, way in ways.items():
            total = timed(functools.partial(way.run, counts[name]), request.device)
            seconds[name].append(total / counts[name])
    return seconds


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
