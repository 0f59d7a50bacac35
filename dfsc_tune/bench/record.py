"""Makes a benchmark's record: training beside the usual loop, scoring, start-up, trials at once.

Images are generated, as times do not depend on what they show. Compared loops take turns in each
round, so that other work of the machine affects all of them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dfsc_tune.bench.packing import measure_packing, mps_runs
from dfsc_tune.bench.request import FAST, BenchRequest, Figure, generated_data, synchronize, timed
from dfsc_tune.bench.steps import measure_training
from dfsc_tune.data.prepared import ResidentImages
from dfsc_tune.errors import UserError
from dfsc_tune.models.speed import compute_dtype
from dfsc_tune.storage.atomic import write_text
from dfsc_tune.training.machine import describe_machine
from dfsc_tune.training.train import Training
from dfsc_tune.training.trial import judge_training

_FIRST_STEPS = 5


def benchmark(
    request: BenchRequest,
    num_threads: int,
    counts: Sequence[int],
    progress: Callable[[str], None],
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Measures all figures and describes the machine.

    Args:
        request: what to measure.
        num_threads: CPU threads in use; several trials at once share them.
        counts: numbers of trials to measure at once, ascending.
        progress: called with what is being measured.
        note: called with what failed and was left out.
    """
    training = measure_training(request, progress)
    progress("scoring")
    scoring = measure_scoring(request, training["seconds_per_step"]["fast"].median)
    progress("starting trials")
    start = measure_start(request)
    try:
        at_once = measure_packing(request, counts, num_threads, progress, note)
    except UserError as error:
        # What was measured before is kept.
        note(str(error))
        at_once = []
    return {
        **describe_machine(),
        "device": request.device,
        "num_threads": num_threads,
        "dtype": str(compute_dtype(FAST, request.device)).removeprefix("torch."),
        "model": request.model.model_dump(),
        "training": training,
        "scoring": scoring,
        "start": start,
        "mps": request.on_gpu and mps_runs(),
        "at_once": at_once,
    }


def write_record(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a benchmark's record as YAML and returns it as plain values."""
    plain: dict[str, Any] = _plain(record)
    write_text(path, yaml.safe_dump(plain, sort_keys=False))
    return plain


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, list | tuple) else value


def measure_scoring(request: BenchRequest, seconds_per_step: float) -> dict[str, Any]:
    """Measures the seconds in which a report scores its images, and their ratio to its steps'."""
    data = generated_data(request, FAST)
    num_validation, num_selection = request.num_scored
    training = Training(
        request.config(FAST),
        replace(
            data,
            validation=_repeated(data.validation, num_validation),
            selection=_repeated(data.selection, num_selection),
        ),
    )
    report = functools.partial(judge_training, training)
    report()
    figure = Figure.of([timed(report, request.device) for _ in range(request.rounds)])
    return {
        "num_images": num_validation + num_selection,
        "num_ema_momenta": len(request.ema_momenta),
        "seconds_per_report": figure,
        "report_interval": request.report_interval,
        "share_of_steps": figure.median / (seconds_per_step * request.report_interval),
    }


def measure_start(request: BenchRequest) -> dict[str, Figure]:
    """Measures the seconds from a config to the first step, and those of the first steps.

    In the first steps, a GPU records its graph.
    """
    build, first = [], []
    for _ in range(request.rounds):
        data = generated_data(request, FAST)
        start = time.perf_counter()
        training = Training(request.config(FAST), data)
        synchronize(request.device)
        build.append(time.perf_counter() - start)
        first.append(timed(lambda: training.run(_FIRST_STEPS), request.device))  # noqa: B023
    return {"seconds_to_build": Figure.of(build), "seconds_of_first_steps": Figure.of(first)}


def _repeated(images: ResidentImages, count: int) -> ResidentImages:
    """Returns `count` images by repeating those given."""
    return images.take([index % len(images) for index in range(count)])
