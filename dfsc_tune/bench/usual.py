"""The usual public training loop, with which the benchmark compares the fast path.

It trains the same networks with the same loss as `train.Training`, in the manner of public
EfficientAD code: images are decoded again in each epoch, the teacher runs in every step, thresholds
sort all values, and everything is float32. Only the benchmark uses it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dfsc_tune.config import TrialConfig
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import IMAGENET_MEAN, IMAGENET_STD, build_pdn, teacher_channels
from dfsc_tune.models.teacher import Teacher

_GPU_WORKERS = 4


class ImageFiles(Dataset[Tensor]):
    """The images of some files, each decoded, resized and normalised at every access."""

    def __init__(self, paths: Sequence[Path], image_size: int) -> None:
        self._paths = paths
        self._size = (image_size, image_size)
        self._mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self._paths[index]) as image:
            resized = image.convert("RGB").resize(self._size, Image.Resampling.BILINEAR)
        values = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        pixels = values.view(*self._size, 3).permute(2, 0, 1)
        return (pixels / 255 - self._mean) / self._std


class UsualLoop:
    """Student, autoencoder, optimizer and average of one training by the usual loop."""

    def __init__(
        self, config: TrialConfig, paths: Sequence[Path], teacher: Teacher, device: str = "cpu"
    ) -> None:
        self.config = config
        self.device = device
        self._channels = teacher_channels(config.model.network)
        self.teacher = teacher.to(device)
        self.student = build_pdn(config.model.network, 2 * self._channels).to(device)
        self.autoencoder = build_autoencoder(config.model).to(device).train()
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self.optimizer = torch.optim.Adam(
            [*self.student.parameters(), *self.autoencoder.parameters()],
            lr=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
        )
        on_gpu = device.startswith("cuda")
        self._loader = DataLoader(
            ImageFiles(paths, config.model.image_size),
            shuffle=True,
            # As in public code; on a CPU, workers would take cores away from training.
            num_workers=_GPU_WORKERS if on_gpu else 0,
            pin_memory=on_gpu,
            persistent_workers=on_gpu,
        )
        self._images = iter(self._loader)

    def step(self) -> float:
        """Trains one step and returns its loss."""
        images = self._next_images().to(self.device)
        with torch.no_grad():
            teacher = self.teacher(images)
        student = self.student(images)
        autoencoder = self.autoencoder(images)
        loss = self._loss(teacher, student, autoencoder)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        momentum = self.config.train.ema_momentum
        with torch.no_grad():
            for ours, theirs in zip(
                self.average.parameters(), self.student.parameters(), strict=True
            ):
                ours.mul_(momentum).add_(theirs, alpha=1 - momentum)
        return loss.item()

    def _loss(self, teacher: Tensor, student: Tensor, autoencoder: Tensor) -> Tensor:
        config = self.config.loss
        distance = (teacher - student[:, : self._channels]) ** 2
        threshold = torch.quantile(distance, config.hard_quantile)
        total = distance[distance >= threshold].mean()
        total = total + ((teacher - autoencoder) ** 2).mean()
        total = total + ((autoencoder - student[:, self._channels :]) ** 2).mean()
        if config.margin > 0:
            gap = (teacher - autoencoder).detach() ** 2
            mask = gap >= torch.quantile(gap, config.quantile)
            difference = F.normalize(teacher * mask) - F.normalize(autoencoder * mask)
            hinge = F.relu(config.margin - torch.linalg.vector_norm(difference, dim=1))
            total = total + config.alpha * hinge.mean()
        return total

    def _next_images(self) -> Tensor:
        images: Tensor | None = next(self._images, None)
        if images is None:
            self._images = iter(self._loader)
            images = next(self._images)
        return images
