"""The training state and its loop: plain PyTorch, resumable bit for bit on a CPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dfsc_tune.config import TrainConfig, TrialConfig
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import build_pdn, normalize_images, teacher_channels
from dfsc_tune.models.speed import GraphedStep, autocast, compute_dtype, memory_format, place
from dfsc_tune.training.efficientad import color_jitter, random_grayscale
from dfsc_tune.training.losses import Losses, total_loss
from dfsc_tune.training.prepare import ResidentData

_BETA1 = 0.9
_DECAY = 0.1


class TrialError(Exception):
    """A trial cannot go on, for example as a loss is not finite; the search goes on."""


def learning_rate(step: int, config: TrainConfig) -> float:
    """Returns the learning rate of the step after `step` finished ones.

    It follows untuned exponential warm-up (Ma & Yarats, 2021), and is a tenth in the last
    `decay_share` of the steps.
    """
    rate = config.learning_rate
    if config.warmup:
        rate *= 1 - math.exp(-(1 - config.beta2) * (step + 1))
    if step >= round(config.num_steps * (1 - config.decay_share)):
        rate *= _DECAY
    return rate


def image_order(seed: int, num_images: int, num_steps: int) -> Tensor:
    """Returns the image of each step, (num_steps,) int64: each epoch has an order of its own."""
    epochs = []
    for epoch in range(math.ceil(num_steps / num_images)):
        # Each epoch has its own generator, so that a longer training begins like a shorter one.
        key = np.random.SeedSequence((seed, epoch)).generate_state(1)
        generator = torch.Generator().manual_seed(int(key[0]))
        epochs.append(torch.randperm(num_images, generator=generator))
    return torch.cat(epochs)[:num_steps]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, momentum: float) -> None:
    """θ_ema ← μ·θ_ema + (1 − μ)·θ, in place."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - momentum)


class Training:
    """The training state of one trial: student, autoencoder, optimizer, averages and steps done.

    All that a step needs lies on the device: images, features, their order, learning rates, and the
    sums of the losses. Nothing is read back before `run` ends.

    Initial weights, dropout and jitter draw from torch's global generators, which are set to the
    trial's own random state meanwhile and restored afterwards. So a training and other code do not
    disturb each other.
    """

    def __init__(self, config: TrialConfig, data: ResidentData) -> None:
        self.config = config
        self.data = data
        self.dtype = compute_dtype(config.speed, data.device)
        self._layout = memory_format(config.speed)
        channels = teacher_channels(config.model.network)
        with self._own_randomness(config.seed):
            self.student = build_pdn(config.model.network, 2 * channels)
            self.autoencoder = build_autoencoder(config.model)
        for network in (self.student, self.autoencoder):
            place(network, config.speed, data.device)
        self.averages = {
            momentum: copy.deepcopy(self.student).eval().requires_grad_(False)
            for momentum in config.train.ema_momenta
        }
        num_steps = config.train.num_steps
        rates = [learning_rate(step, config.train) for step in range(num_steps)]
        self._rates = torch.tensor(rates, device=data.device)
        self._order = image_order(config.seed, len(data.train), num_steps).to(data.device)
        self._position = torch.zeros(1, dtype=torch.int64, device=data.device)
        self._rate = torch.zeros((), device=data.device)
        self._sums = torch.zeros(len(Losses._fields), device=data.device)
        self.optimizer = self._build_optimizer()
        self.step = 0
        self._advance = self._fastest_step()

    def run(self, until_step: int) -> dict[str, float]:
        """Trains until `until_step` steps are done; returns the mean of each loss over these steps.

        Raises:
            TrialError: a loss is not finite.
        """
        first = self.step
        self._sums.zero_()
        self.autoencoder.train()
        with self._own_randomness():
            self._advance(until_step - self.step)
        self.step = max(self.step, until_step)
        # The device is read once per call, not per step.
        means = (self._sums / max(self.step - first, 1)).tolist()
        named = dict(zip(Losses._fields, means, strict=True))
        for name, value in named.items():
            if not math.isfinite(value):
                raise TrialError(
                    f"the loss '{name}' became {value} between steps {first} and {self.step}"
                )
        return named

    def state_dict(self) -> dict[str, Any]:
        """Returns everything on which the rest of the training depends."""
        return {
            "step": self.step,
            "student": self.student.state_dict(),
            "autoencoder": self.autoencoder.state_dict(),
            "averages": {str(key): model.state_dict() for key, model in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "random": self._random_state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state from `state_dict`, from which the training goes on."""
        self.step = state["step"]
        self._position.fill_(self.step)
        self.student.load_state_dict(state["student"])
        self.autoencoder.load_state_dict(state["autoencoder"])
        for key, model in self.averages.items():
            model.load_state_dict(state["averages"][str(key)])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate
        self._random_state = state["random"]
        # A graph that is already recorded would go on with the optimizer's old state.
        self._advance = self._fastest_step()

    @contextmanager
    def _own_randomness(self, seed: int | None = None) -> Iterator[None]:
        """Sets torch's generators to this training's state, and restores them after the block."""
        device = self.data.device
        devices = [torch.device(device)] if device.startswith("cuda") else []
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

    def _fastest_step(self) -> Callable[[int], None]:
        """Returns a function that takes a number of steps, by a CUDA graph if possible."""
        train, device, speed = self.config.train, self.data.device, self.config.speed
        # Colour jitter and penalty draw on the CPU at each step, which a graph cannot contain.
        fixed = not train.autoencoder_augmentation and self.data.penalty_pixels is None
        if device.startswith("cuda") and speed.cuda_graph and fixed:
            return GraphedStep(self._one_step, device)
        return self._take

    def _take(self, count: int) -> None:
        for _ in range(count):
            self._one_step()

    def _one_step(self) -> None:
        index = self._order.index_select(0, self._position)
        self._rate.copy_(self._rates.index_select(0, self._position)[0])
        losses = self._losses(index)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.optimizer.step()
        for momentum, average in self.averages.items():
            update_average(average, self.student, momentum)
        self._sums += torch.stack(losses).detach()
        self._position += 1

    def _losses(self, index: Tensor) -> Losses:
        """Returns the losses of one image; `index` is its place among the training images, (1,)."""
        pixels = self.data.train.pixels.index_select(0, index)
        features = self.data.train.features.index_select(0, index)
        images = normalize_images(pixels).contiguous(memory_format=self._layout)
        features = features.to(torch.float32, memory_format=self._layout)
        augmented = None
        autoencoder_input = images
        if self.config.train.autoencoder_augmentation:
            jittered = normalize_images(color_jitter(pixels))
            autoencoder_input = jittered.contiguous(memory_format=self._layout)
            augmented = (self.data.teacher(autoencoder_input), self._answer(autoencoder_input))
        with autocast(self.dtype, self.data.device):
            reconstruction = self.autoencoder(autoencoder_input)
        return total_loss(
            features,
            self._answer(images),
            reconstruction.float(),
            self.config.loss,
            augmented=augmented,
            penalty=self._penalty_answer(features.shape[1]),
        )

    def _answer(self, images: Tensor) -> Tensor:
        with autocast(self.dtype, self.data.device):
            answer: Tensor = self.student(images)
        return answer.float()

    def _penalty_answer(self, channels: int) -> Tensor | None:
        photographs = self.data.penalty_pixels
        if photographs is None:
            return None
        index = int(torch.randint(len(photographs), ()))
        photograph = normalize_images(random_grayscale(photographs[index : index + 1]))
        return self._answer(photograph.contiguous(memory_format=self._layout))[:, :channels]

    def _build_optimizer(self) -> torch.optim.Optimizer:
        config = self.config.train
        optimizer = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        return optimizer(
            [*self.student.parameters(), *self.autoencoder.parameters()],
            # A tensor, as a recorded step must find each step's rate in the same memory.
            lr=self._rate,
            betas=(_BETA1, config.beta2),
            fused=True,
            capturable=self.data.device.startswith("cuda"),
            weight_decay=config.weight_decay,
        )
