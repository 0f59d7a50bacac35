"""Measures training, scoring and start-up on this machine: the usual loop beside plain and fast.

Images are generated, for times do not depend on what they show. Every figure is of rounds in which
the compared ways take turns, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from dfsc_tune.checkpoint import write_text
from dfsc_tune.config import PLAIN, ModelConfig, SpeedConfig, TrainConfig, TrialConfig
from dfsc_tune.data.prepared import ResidentImages
from dfsc_tune.losses import total_loss
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import build_pdn, feature_size, teacher_channels
from dfsc_tune.models.teacher import Teacher
from dfsc_tune.prepare import ResidentData
from dfsc_tune.results import describe_machine
from dfsc_tune.speed import compute_dtype
from dfsc_tune.train import Training
from dfsc_tune.trial import judge_training
from dfsc_tune.usual import UsualLoop

# About MVTec LOCO's images: decoding them is part of the usual loop's cost.
_FILE_SIZE = (1600, 1100)
_NUM_FILES = 8
_NUM_IMAGES = 16
_WARM_UP_STEPS = 5
_PEAK_SIZES = (1024, 2048, 4096)
_COPY_BYTES = 1 << 28


@dataclass(frozen=True)
class Figure:
    """A measured quantity: its median and spread over n rounds."""

    n: int
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """The figure of some rounds' values."""
        return cls(len(values), statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class BenchRequest:
    """What to measure, and how often."""

    model: ModelConfig
    device: str
    rounds: int
    seconds_per_round: float
    """How long each way runs in each round, about."""
    num_scored: tuple[int, int] = (60, 156)
    """Images scored at a report: good validation images, and those of the selection part."""
    report_interval: int = 7_000
    """Steps between two reports, which a report's cost is compared with."""
    ema_momenta: tuple[float, ...] = (0.99, 0.9, 0.999)

    def config(self, speed: SpeedConfig) -> TrialConfig:
        """A trial's settings with the paper's values."""
        momentum, *extra = self.ema_momenta
        train = TrainConfig(ema_momentum=momentum, extra_ema_momenta=tuple(extra))
        return TrialConfig(category="generated", model=self.model, speed=speed, train=train)


FAST = SpeedConfig()
VARIANTS: dict[str, SpeedConfig] = {
    "plain": PLAIN,
    "fast": FAST,
    "fast_float32": FAST.model_copy(update={"precision": "float32"}),
    "fast_channels_first": FAST.model_copy(update={"channels_last": False}),
    "fast_float32_features": FAST.model_copy(update={"half_features": False}),
    "fast_eager": FAST.model_copy(update={"cuda_graph": False}),
}
"""Our ways to take a step: all switches off, all on, and each one off alone."""


def benchmark(
    request: BenchRequest, num_threads: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """All figures of one trial at a time, with what they were measured on.

    Args:
        request: what to measure.
        num_threads: CPU threads in use, for the record.
        progress: told what is being measured.
    """
    training = measure_training(request, progress)
    progress("scoring")
    scoring = measure_scoring(request, training["seconds_per_step"]["fast"].median)
    progress("starting trials")
    return {
        **describe_machine(),
        "device": request.device,
        "num_threads": num_threads,
        "dtype": str(compute_dtype(FAST, request.device)).removeprefix("torch."),
        "model": request.model.model_dump(),
        "training": training,
        "scoring": scoring,
        "start": measure_start(request),
    }


def write_record(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a benchmark's record as YAML; the same as plain values."""
    plain: dict[str, Any] = _plain(record)
    write_text(path, yaml.safe_dump(plain, sort_keys=False))
    return plain


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, list | tuple) else value


def measure_training(request: BenchRequest, progress: Callable[[str], None]) -> dict[str, Any]:
    """Seconds per step of the usual loop and of each variant, and what they are shares of."""
    with _image_files() as paths:
        teacher = Teacher(build_pdn(request.model.network, teacher_channels(request.model.network)))
        usual = UsualLoop(request.config(PLAIN), paths, teacher, request.device)
        ways: dict[str, Callable[[int], object]] = {
            "usual": lambda count: [usual.step() for _ in range(count)]
        }
        for name, speed in _variants(request.device).items():
            training = Training(request.config(speed), generated_data(request, speed))
            ways[name] = functools.partial(_train, training)
        seconds = _take_turns(ways, request, progress)
    figures = {name: Figure.of(values) for name, values in seconds.items()}
    ratio = [a / b for a, b in zip(seconds["usual"], seconds["fast"], strict=True)]
    peak_flops = measure_peak_flops(request.device, compute_dtype(FAST, request.device))
    bandwidth = measure_bandwidth(request.device)
    flops, num_bytes = step_flops(request.model), step_bytes(request)
    return {
        "seconds_per_step": figures,
        "usual_over_fast": Figure.of(ratio),
        "flops_per_step": flops,
        "bytes_per_step": num_bytes,
        "peak_flops_per_second": peak_flops,
        "peak_bytes_per_second": bandwidth,
        "share_of_compute_peak": flops / figures["fast"].median / peak_flops,
        "share_of_bandwidth": num_bytes / figures["fast"].median / bandwidth,
    }


def measure_scoring(request: BenchRequest, seconds_per_step: float) -> dict[str, Any]:
    """Seconds a report takes to score its images, and their share of the steps before it."""
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
    figure = Figure.of([_timed(report, request.device) for _ in range(request.rounds)])
    return {
        "num_images": num_validation + num_selection,
        "num_ema_momenta": len(request.ema_momenta),
        "seconds_per_report": figure,
        "report_interval": request.report_interval,
        "share_of_steps": figure.median / (seconds_per_step * request.report_interval),
    }


def measure_start(request: BenchRequest) -> dict[str, Figure]:
    """Seconds from a config to the first step, and of the first steps, in which a GPU captures."""
    build, first = [], []
    for _ in range(request.rounds):
        data = generated_data(request, FAST)
        start = time.perf_counter()
        training = Training(request.config(FAST), data)
        _synchronize(request.device)
        build.append(time.perf_counter() - start)
        first.append(_timed(lambda: training.run(_WARM_UP_STEPS), request.device))  # noqa: B023
    return {"seconds_to_build": Figure.of(build), "seconds_of_first_steps": Figure.of(first)}


def generated_data(request: BenchRequest, speed: SpeedConfig) -> ResidentData:
    """A category of generated images on the device; few, for steps take equally long with many."""
    model, device = request.model, request.device
    generator = torch.Generator().manual_seed(0)
    channels, size = teacher_channels(model.network), feature_size(model.image_size)
    shape = (_NUM_IMAGES, 3, model.image_size, model.image_size)
    features = torch.randn((_NUM_IMAGES, channels, size, size), generator=generator)
    kinds = ["good", "logical", "structural", "structural"] * (_NUM_IMAGES // 4)
    images = ResidentImages(
        pixels=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device),
        features=features.to(device, getattr(torch, speed.feature_dtype)),
        sizes=np.tile(np.array(_FILE_SIZE[::-1], np.int32), (_NUM_IMAGES, 1)),
        kinds=kinds,
        defect_types=kinds,
    )
    teacher = Teacher(build_pdn(model.network, channels)).to(device)
    return ResidentData(device, images, images, images, teacher, None)


def step_flops(model: ModelConfig) -> int:
    """Floating-point operations of one step with cached teacher features, forward and backward."""
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


def step_bytes(request: BenchRequest) -> int:
    """Bytes that a step must move at least.

    Weights are read forward and backward, their gradients written and read, Adam's two moments and
    the weights read and written, each average too: all float32. Each convolution's output is
    written and read once forward, and read once backward, where its gradient is written and read.
    """
    model = request.model
    channels = teacher_channels(model.network)
    # Without numbers: only shapes count.
    with torch.device("meta"):
        images = torch.empty(1, 3, model.image_size, model.image_size)
        networks = [build_pdn(model.network, 2 * channels), build_autoencoder(model)]
    num_outputs = 0

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal num_outputs
        num_outputs += output.numel()

    for network in networks:
        for layer in network:
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(count)
        with torch.no_grad():
            network(images)
    student, autoencoder = (sum(x.numel() for x in net.parameters()) for net in networks)
    item = compute_dtype(FAST, request.device).itemsize
    weights = 4 * (10 * (student + autoencoder) + 2 * len(request.ema_momenta) * student)
    return weights + 5 * item * num_outputs


def measure_peak_flops(device: str, dtype: torch.dtype) -> float:
    """The most floating-point operations a second that a matrix product reached."""
    best = 0.0
    for size in _PEAK_SIZES:
        a = torch.randn(size, size, device=device, dtype=dtype)
        product = functools.partial(torch.mm, a, a.clone())
        product()
        seconds = min(_timed(product, device) for _ in range(5))
        best = max(best, 2 * size**3 / seconds)
    return best


def measure_bandwidth(device: str) -> float:
    """Bytes a second read and written by a copy too large for any cache."""
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = min(_timed(functools.partial(target.copy_, source), device) for _ in range(5))
    return 2 * _COPY_BYTES / seconds


def _variants(device: str) -> Mapping[str, SpeedConfig]:
    """Those that differ on a device: without a GPU there is no graph to switch off."""
    on_gpu = device.startswith("cuda")
    return {name: speed for name, speed in VARIANTS.items() if on_gpu or name != "fast_eager"}


def _take_turns(
    ways: Mapping[str, Callable[[int], object]],
    request: BenchRequest,
    progress: Callable[[str], None],
) -> dict[str, list[float]]:
    """Seconds per step of each way in each round."""
    counts = {}
    for name, run in ways.items():
        progress(f"warming up {name}")
        run(_WARM_UP_STEPS)
        once = _timed(functools.partial(run, 1), request.device)
        counts[name] = max(1, round(request.seconds_per_round / once))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(request.rounds):
        progress(f"training, round {number + 1} of {request.rounds}")
        for name, run in ways.items():
            total = _timed(functools.partial(run, counts[name]), request.device)
            seconds[name].append(total / counts[name])
    return seconds


def _train(training: Training, count: int) -> None:
    training.run(training.step + count)


def _timed(work: Callable[[], object], device: str) -> float:
    _synchronize(device)
    start = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _repeated(images: ResidentImages, count: int) -> ResidentImages:
    """Some of the images, over and over, as many as asked for."""
    index = torch.arange(count) % len(images)
    chosen = index.to(images.pixels.device)
    kinds = [images.kinds[i] for i in index.tolist()]
    return ResidentImages(
        images.pixels[chosen], images.features[chosen], images.sizes[index.numpy()], kinds, kinds
    )


@contextmanager
def _image_files() -> Iterator[list[Path]]:
    """Files of generated images of about MVTec LOCO's size, smooth as photographs are."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="dfsc_tune_") as folder:
        paths = [Path(folder) / f"{index}.png" for index in range(_NUM_FILES)]
        for path in paths:
            coarse = generator.integers(0, 256, (69, 100, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(_FILE_SIZE, Image.Resampling.BICUBIC).save(path)
        yield paths
