"""A benchmark's request, its figures, its generated data and its clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dfsc_tune.config import ModelConfig, SpeedConfig, TrainConfig, TrialConfig
from dfsc_tune.data.prepared import ResidentImages
from dfsc_tune.models.pdn import build_pdn, feature_size, teacher_channels
from dfsc_tune.models.teacher import Teacher
from dfsc_tune.training.objectives.holdout import Holdout
from dfsc_tune.training.prepare import ResidentData

FAST = SpeedConfig()
FILE_SIZE = (1600, 1100)
"""Width and height about as in MVTec LOCO: decoding images is part of the usual loop's cost."""
_NUM_IMAGES = 16


@dataclass(frozen=True)
class Figure:
    """A measured quantity: its median and spread over n rounds."""

    n: int
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Summarises the values of several rounds."""
        return cls(len(values), statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class BenchRequest:
    """The model and device to measure, and the rounds."""

    model: ModelConfig
    device: str
    rounds: int
    seconds_per_round: float
    """Approximate time for which each loop runs in each round."""
    num_scored: tuple[int, int] = (60, 156)
    """Images scored at a report: good validation images, and those of the selection part."""
    report_interval: int = 7_000
    """Steps between two reports, with whose time a report's is compared."""
    ema_momenta: tuple[float, ...] = (0.99, 0.9, 0.999)

    @property
    def on_gpu(self) -> bool:
        """True if the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def num_steps(self) -> int:
        """Number of steps that a training has images and learning rates for: the paper's 70,000."""
        return TrainConfig().num_steps

    def config(self, speed: SpeedConfig) -> TrialConfig:
        """Returns a trial's settings with the paper's values."""
        momentum, *extra = self.ema_momenta
        train = TrainConfig(ema_momentum=momentum, extra_ema_momenta=tuple(extra))
        return TrialConfig(category="generated", model=self.model, speed=speed, train=train)


def generated_data(request: BenchRequest, speed: SpeedConfig) -> ResidentData:
    """Returns a category of generated images on the device; steps take as long with few as many."""
    model, device = request.model, request.device
    generator = torch.Generator().manual_seed(0)
    channels, size = teacher_channels(model.network), feature_size(model.image_size)
    shape = (_NUM_IMAGES, 3, model.image_size, model.image_size)
    features = torch.randn((_NUM_IMAGES, channels, size, size), generator=generator)
    kinds = ["good", "logical", "structural", "structural"] * (_NUM_IMAGES // 4)
    images = ResidentImages(
        pixels=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device),
        features=features.to(device, getattr(torch, speed.feature_dtype)),
        sizes=np.tile(np.array(FILE_SIZE[::-1], np.int32), (_NUM_IMAGES, 1)),
        kinds=kinds,
        defect_types=kinds,
    )
    teacher = Teacher(build_pdn(model.network, channels)).to(device)
    return ResidentData(Holdout(), device, images, images, images, teacher, None)


def timed(work: Callable[[], object], device: str) -> float:
    """Measures the seconds until the device has finished some work."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Waits until the device has finished all its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
