"""The types of what is read from a benchmark's record; other keys, as of old records, are ignored.

Loads no torch.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, model_validator

AS_A_SEARCH = "processes"
"""The way in which a search runs trials at once; some old records hold others too."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Measured(_Part):
    """A measured quantity, as `Figure` has it."""

    median: PositiveFloat


class MeasuredHardware(_Part):
    """The machine that was measured."""

    processor: str
    num_cpus: PositiveInt
    gpus: tuple[str, ...]
    """Their names."""


class MeasuredModel(_Part):
    """The model that was measured."""

    network: str
    image_size: PositiveInt


class Loops(_Part):
    """The training loops that were measured."""

    fast: Measured


class MeasuredTraining(_Part):
    """The steps of training."""

    seconds_per_step: Loops


class MeasuredScoring(_Part):
    """The scoring at a report."""

    num_images: PositiveInt
    num_ema_momenta: PositiveInt
    seconds_per_report: Measured


class MeasuredStart(_Part):
    """The start of a trial."""

    seconds_to_build: Measured
    seconds_of_first_steps: Measured


class MeasuredPacking(_Part):
    """Several trials at once on one device."""

    num_trials: PositiveInt
    steps_per_second: PositiveFloat
    """Of all together."""
    way: str = AS_A_SEARCH


class BenchRecord(_Part):
    """A benchmark's record."""

    created: str
    """ISO 8601, UTC."""
    device: str
    hardware: MeasuredHardware
    model: MeasuredModel
    training: MeasuredTraining
    scoring: MeasuredScoring
    start: MeasuredStart
    at_once: tuple[MeasuredPacking, ...]

    @property
    def on_gpu(self) -> bool:
        """True if a GPU was measured."""
        return self.device.startswith("cuda")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.on_gpu and not self.hardware.gpus:
            raise ValueError(f"device is {self.device}, and hardware names no GPU")
        return self
