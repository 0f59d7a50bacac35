"""Measures the seconds per step of the usual loop, of plain PyTorch and of the fast path."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfsc_tune.bench.request import FAST, FILE_SIZE, BenchRequest, Figure, generated_data, timed
from dfsc_tune.bench.usual import UsualLoop
from dfsc_tune.config import PLAIN, SpeedConfig
from dfsc_tune.models.pdn import build_pdn, teacher_channels
from dfsc_tune.models.teacher import Teacher
from dfsc_tune.storage.places import scratch_folder
from dfsc_tune.training.train import Training

_NUM_FILES = 8
# A GPU records its graph after the first few steps.
_WARM_UP_STEPS = 10

Loop = Callable[[int], object]
"""A training loop, called with a number of steps to take."""


def measure_training(request: BenchRequest, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measures the seconds per step of each loop, and the speed-up of `fast` over `usual`.

    Args:
        request: what to measure.
        progress: called with what is being measured.
    """
    with _image_files() as paths:
        teacher = Teacher(build_pdn(request.model.network, teacher_channels(request.model.network)))
        usual = UsualLoop(request.config(PLAIN), paths, teacher, request.device)
        loops: dict[str, Loop] = {
            "usual": lambda count: [usual.step() for _ in range(count)],
            "plain": _steps_of(request, PLAIN),
            "fast": _steps_of(request, FAST),
        }
        seconds = _take_turns(loops, request, progress)
    ratio = [a / b for a, b in zip(seconds["usual"], seconds["fast"], strict=True)]
    return {
        "seconds_per_step": {name: Figure.of(values) for name, values in seconds.items()},
        "usual_over_fast": Figure.of(ratio),
    }


def _steps_of(request: BenchRequest, speed: SpeedConfig) -> Loop:
    training = Training(request.config(speed), generated_data(request, speed))
    return lambda count: training.run(training.step + count)


def _take_turns(
    loops: Mapping[str, Loop], request: BenchRequest, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Returns the seconds per step of each loop in each round."""
    counts = {}
    for name, run in loops.items():
        progress(f"warming up {name}")
        counts[name] = _warm_up(run, request)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(request.rounds):
        progress(f"training, round {number + 1} of {request.rounds}")
        for name, run in loops.items():
            count = counts[name]
            total = timed(functools.partial(run, count), request.device)
            seconds[name].append(total / count)
    return seconds


def _warm_up(run: Loop, request: BenchRequest) -> int:
    """Warms a loop up and returns its number of steps in a round."""
    run(_WARM_UP_STEPS)
    seconds_per_step = timed(functools.partial(run, 1), request.device)
    most = request.num_steps // (request.rounds + 1)
    return max(1, round(min(request.seconds_per_round / seconds_per_step, most)))


@contextmanager
def _image_files() -> Iterator[list[Path]]:
    """Yields files of generated images about the size of MVTec LOCO's, as smooth as photographs."""
    generator = np.random.default_rng(0)
    with scratch_folder() as folder:
        paths = [folder / f"{index}.png" for index in range(_NUM_FILES)]
        for path in paths:
            coarse = generator.integers(0, 256, (69, 100, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(FILE_SIZE, Image.Resampling.BICUBIC).save(path)
        yield paths
