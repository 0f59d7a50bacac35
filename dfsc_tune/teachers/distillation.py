"""Trains a PDN to predict a backbone's intermediate features of photographs.

Source: Batzner et al., EfficientAD, the appendix on distilling the teacher. The features are
computed beforehand, so that a step runs only the PDN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from dfsc_tune.models.distill_config import DistillConfig
from dfsc_tune.models.pdn import (
    build_pdn,
    feature_size,
    grayscale,
    normalize_images,
    teacher_channels,
)
from dfsc_tune.teachers.targets import Targets, Window

_DECAY = 0.1
# Cells on each side of the padded grid that an unpadded PDN does not predict.
_BORDER = 4


class Distillation:
    """The PDN, its optimizer and the steps done; resumable bit for bit on a CPU.

    Args:
        config: its settings.
        pixels: the photographs, uint8 (N, 3, S, S), S the config's image_size.
        targets: of the same N photographs.
        device: where to train.
    """

    def __init__(
        self,
        config: DistillConfig,
        pixels: npt.NDArray[np.uint8],
        targets: Targets,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.device = device
        self.pixels = pixels
        self.targets = targets
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            channels = teacher_channels(config.network)
            pdn = build_pdn(config.network, channels, padded=config.crop_size is None)
        self.pdn = pdn.to(device)
        self.optimizer = torch.optim.Adam(self.pdn.parameters(), lr=config.learning_rate)
        self.step = 0

    def run(self, until_step: int) -> float:
        """Trains until `until_step` steps are done; returns the mean loss over these steps."""
        first = self.step
        total = torch.zeros((), device=self.device)
        while self.step < until_step:
            total += self._one_step()
        return float(total) / max(self.step - first, 1)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything on which the rest of the training depends."""
        return {
            "step": self.step,
            "pdn": self.pdn.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state from `state_dict`, from which the training goes on."""
        self.step = state["step"]
        self.pdn.load_state_dict(state["pdn"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _one_step(self) -> Tensor:
        config = self.config
        # Each step has its own generator, so that a checkpoint need not hold its state.
        random = np.random.default_rng((config.seed, self.step))
        indices = random.integers(len(self.pixels), size=config.batch_size)
        grey = random.random(config.batch_size) < config.grayscale_share
        window = self._window(random)
        images = self._images(indices, grey, window)
        targets = self.targets.batch(indices, grey, window, self.device)
        decayed = self.step >= round(config.num_steps * (1 - config.decay_share))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * (_DECAY if decayed else 1.0)
        with config.precision(self.device):
            answer = self.pdn(images)
        loss = F.mse_loss(answer.float(), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def _window(self, random: np.random.Generator) -> Window:
        """Returns the cells that the PDN predicts: all if it is padded, else random crops."""
        config = self.config
        grid = config.image_size // 4
        if config.crop_size is None:
            return Window.whole(grid, config.batch_size)
        last = (config.image_size - config.crop_size) // 4
        top, left = random.integers(last + 1, size=(2, config.batch_size))
        # Cell k of an unpadded PDN sees the same pixels as cell k + 4 of a padded one.
        return Window(grid, feature_size(config.crop_size), top + _BORDER, left + _BORDER)

    def _images(
        self, indices: npt.NDArray[np.int64], grey: npt.NDArray[np.bool_], window: Window
    ) -> Tensor:
        pixels = self.pixels[indices]
        if (size := self.config.crop_size) is not None:
            corners = zip(4 * (window.top - _BORDER), 4 * (window.left - _BORDER), strict=True)
            pixels = np.stack(
                [
                    image[:, top : top + size, left : left + size]
                    for image, (top, left) in zip(pixels, corners, strict=True)
                ]
            )
        images = torch.from_numpy(pixels).to(self.device)
        chosen = torch.from_numpy(grey).to(self.device)
        images[chosen] = grayscale(images[chosen]).round().to(torch.uint8).expand(-1, 3, -1, -1)
        return normalize_images(images).contiguous(memory_format=torch.channels_last)
