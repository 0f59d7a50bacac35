"""The training state and its loop: plain PyTorch, resumable bit for bit on a CPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfsc_tune.config import TrainConfig, TrialConfig
from dfsc_tune.data.prepared import PreparedImages, shared_tensor
from dfsc_tune.efficientad import color_jitter, random_grayscale
from dfsc_tune.losses import Losses, total_loss
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import build_pdn, normalize_images, teacher_channels
from dfsc_tune.models.teacher import Teacher

_BETA1 = 0.9
_DECAY = 0.1


class TrialError(Exception):
    """This trial cannot go on (a loss that is no number); the search does."""


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of the step that follows `step` finished ones.

    Untuned exponential warm-up (Ma & Yarats, 2021), and a tenth for the last `decay_share`.
    """
    rate = config.learning_rate
    if config.warmup:
        rate *= 1 - math.exp(-(1 - config.beta2) * (step + 1))
    if step >= round(config.num_steps * (1 - config.decay_share)):
        rate *= _DECAY
    return rate


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, momentum: float) -> None:
    """θ_ema ← μ·θ_ema + (1 − μ)·θ, in place."""
    for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
        ours.lerp_(theirs, 1 - momentum)


class Training:
    """Student, autoencoder, optimizer and moving averages of one trial, and the steps done.

    First weights, dropout and jitter draw from torch's global generators, as a trial's own random
    state: nothing else that draws disturbs a training, nor does a training disturb anything else.
    """

    def __init__(
        self,
        config: TrialConfig,
        images: PreparedImages,
        teacher: Teacher,
        device: str = "cpu",
        penalty_pixels: np.ndarray[Any, np.dtype[np.uint8]] | None = None,
    ) -> None:
        channels = teacher_channels(config.model.network)
        self.config = config
        self.device = device
        self.teacher = teacher.to(device)
        self.pixels = shared_tensor(images.pixels, device)
        self.features = shared_tensor(images.features, device)
        self.penalty_pixels = (
            None if penalty_pixels is None else shared_tensor(penalty_pixels, device)
        )
        with self._own_randomness(config.seed):
            self.student = build_pdn(config.model.network, 2 * channels).to(device)
            self.autoencoder = build_autoencoder(config.model).to(device)
        self.averages = {
            momentum: copy.deepcopy(self.student).eval().requires_grad_(False)
            for momentum in config.train.ema_momenta
        }
        self.optimizer = _build_optimizer(self.student, self.autoencoder, config.train)
        self.step = 0
        self._order = torch.empty(0, dtype=torch.int64)
        self._order_epoch = -1

    def run(self, until_step: int) -> dict[str, float]:
        """Trains until `until_step` steps are done; the mean of each loss over these steps.

        Raises:
            TrialError: a loss is not finite.
        """
        first = self.step
        sums: list[Tensor] | None = None
        self.autoencoder.train()
        with self._own_randomness():
            while self.step < until_step:
                new = [loss.detach() for loss in self._one_step()]
                sums = new if sums is None else [a + b for a, b in zip(sums, new, strict=True)]
        # The device is read once per call, not per step.
        count = max(self.step - first, 1)
        means = [] if sums is None else (torch.stack(sums) / count).tolist()
        named = dict(zip(Losses._fields, means, strict=bool(means)))
        for name, value in named.items():
            if not math.isfinite(value):
                raise TrialError(
                    f"the loss '{name}' became {value} between steps {first} and {self.step}"
                )
        return named

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "step": self.step,
            "student": self.student.state_dict(),
            "autoencoder": self.autoencoder.state_dict(),
            "averages": {str(key): model.state_dict() for key, model in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "random": self._random_state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.autoencoder.load_state_dict(state["autoencoder"])
        for key, model in self.averages.items():
            model.load_state_dict(state["averages"][str(key)])
        self.optimizer.load_state_dict(state["optimizer"])
        self._random_state = state["random"]

    @contextmanager
    def _own_randomness(self, seed: int | None = None) -> Iterator[None]:
        """Torch's generators in this training's state, and as they were after the block."""
        devices = [torch.device(self.device)] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(devices):
            if seed is not None:
                torch.manual_seed(seed)
            else:
                torch.set_rng_state(self._random_state["cpu"])
                if devices:
                    torch.cuda.set_rng_state(self._random_state["cuda"], devices[0])
            yield
            self._random_state = {"cpu": torch.get_rng_state()}
            if devices:
                self._random_state["cuda"] = torch.cuda.get_rng_state(devices[0])

    def _one_step(self) -> Losses:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config.train)
        losses = self._losses(self._next_image())
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.optimizer.step()
        for momentum, average in self.averages.items():
            update_average(average, self.student, momentum)
        self.step += 1
        return losses

    def _losses(self, index: int) -> Losses:
        pixels = self.pixels[index : index + 1]
        features = self.features[index : index + 1]
        images = normalize_images(pixels)
        answer = self.student(images)
        augmented = None
        autoencoder_input = images
        if self.config.train.autoencoder_augmentation:
            autoencoder_input = normalize_images(color_jitter(pixels))
            augmented = (self.teacher(autoencoder_input), self.student(autoencoder_input))
        return total_loss(
            features,
            answer,
            self.autoencoder(autoencoder_input),
            self.config.loss,
            augmented=augmented,
            penalty=self._penalty_answer(features.shape[1]),
        )

    def _penalty_answer(self, channels: int) -> Tensor | None:
        if self.penalty_pixels is None:
            return None
        index = int(torch.randint(len(self.penalty_pixels), ()))
        photograph = random_grayscale(self.penalty_pixels[index : index + 1])
        answer: Tensor = self.student(normalize_images(photograph))[:, :channels]
        return answer

    def _next_image(self) -> int:
        """The image of this step: every epoch sees each once, in an order that the seed decides."""
        epoch, position = divmod(self.step, len(self.pixels))
        if epoch != self._order_epoch:
            # A generator of its own for each epoch: nothing to save when a trial is resumed.
            key = np.random.SeedSequence((self.config.seed, epoch)).generate_state(1)
            generator = torch.Generator().manual_seed(int(key[0]))
            self._order = torch.randperm(len(self.pixels), generator=generator)
            self._order_epoch = epoch
        return int(self._order[position])


def _build_optimizer(
    student: nn.Module, autoencoder: nn.Module, config: TrainConfig
) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return optimizer(
        [*student.parameters(), *autoencoder.parameters()],
        lr=config.learning_rate,
        betas=(_BETA1, config.beta2),
        fused=True,
        weight_decay=config.weight_decay,
    )
