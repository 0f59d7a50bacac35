"""The settings of a distillation, which the distilled teacher's card records."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator

from dfsc_tune.config import Network
from dfsc_tune.models.speed import autocast
from dfsc_tune.settings import Settings


class DistillConfig(Settings):
    """All settings that determine a distilled teacher."""

    network: Network
    backbone: str
    layers: Annotated[tuple[int, ...], Field(min_length=1, strict=False)]
    """The backbone's layers whose features are learned, in ascending order."""
    image_size: Annotated[int, Field(ge=64, multiple_of=32)]
    """Side, in pixels, of the images that the PDN sees."""
    crop_size: Annotated[int, Field(ge=36, multiple_of=4)] | None = None
    """Side, in pixels, of the random crops on which the PDN is trained without padding, as it will
    be used. None means whole images with padding, as in EfficientAD. A step on crops of several
    images costs less than one on a few whole images, and sees more photographs."""
    num_steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0.0)]
    batch_size: Annotated[int, Field(ge=1)] = 16
    decay_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """Share of the steps, at the end, that are taken at a tenth of the learning rate."""
    grayscale_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """The share of the images shown in grey to both networks."""
    bfloat16: bool = False
    """Mixed precision: about twice as fast on a CPU with AMX."""
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.crop_size is not None and self.crop_size > self.image_size:
            raise ValueError("crop_size must not exceed image_size")
        return self

    def precision(self, device: str) -> torch.autocast:
        """Returns the autocast context in which networks run on a device."""
        return autocast(torch.bfloat16 if self.bfloat16 else torch.float32, device)
