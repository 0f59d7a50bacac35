"""The throughput of trials: read from a benchmark's record of a device, or guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.bench.schema import AS_A_SEARCH, BenchRecord
from dfsc_tune.config import ModelConfig, Network
from dfsc_tune.errors import UserError
from dfsc_tune.settings import validate
from dfsc_tune.storage.documents import read_yaml

BENCHMARKS = "benchmarks"

# Guesses of the FLOP/s that a step reaches. For a CPU core: PDN tiny at 128×128 takes about 45 ms.
# For a GPU: nothing has been measured, and GPUs differ tenfold.
_GUESSED_FLOPS_A_CORE = 50e9
_GUESSED_FLOPS_A_GPU = 10e12
# FLOPs of a step with cached teacher features, forward and backward; a test counts them.
_FLOPS_A_PIXEL: Mapping[Network, float] = {"tiny": 0.16e6, "small": 2.0e6, "medium": 5.9e6}
# Scoring an image takes the forward pass alone of what a step runs forward and backward.
_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class Throughput:
    """The speed of one model's trials on one kind of device."""

    source: str
    """The record's file, or "a guess"."""
    created: str
    """Time of the measurement (ISO 8601, UTC); empty for a guess."""
    device: str
    """The hardware's name."""
    on_gpu: bool
    num_gpus: int
    """GPUs of the machine if measured on a GPU, else 0."""
    num_cpus: int
    """CPU cores of the machine."""
    network: str
    image_size: int
    steps_per_second: Mapping[int, float]
    """Of all trials together, by their number at once on one device; the key 1 always exists."""
    seconds_per_scored_image: float
    """Per image and EMA momentum, of a trial that runs alone."""
    seconds_to_start: float

    def known(self, at_once: int) -> int:
        """Returns the largest number of trials in the record that is not above `at_once`."""
        return max(count for count in self.steps_per_second if count <= at_once)

    def seconds_per_step(self, at_once: int) -> float:
        """Returns the seconds per step of each of several trials at once on one device.

        More trials than in the record are taken to be as fast together as the most in the record.
        """
        return at_once / self.steps_per_second[self.known(at_once)]

    def slowdown(self, at_once: int) -> float:
        """Returns the ratio of a trial's time beside others to its time alone."""
        return self.seconds_per_step(at_once) / self.seconds_per_step(1)

    def check_model(self, model: ModelConfig) -> None:
        """Raises UserError for trials of another network or image size; it says what to measure."""
        if (self.network, self.image_size) != (model.network, model.image_size):
            raise UserError(
                f"{self.source} measured the PDN {self.network} at {self.image_size} pixels, but "
                f"this search trains {model.network} at {model.image_size}; measure that: "
                f"{bench(model)}"
            )


def bench(model: ModelConfig) -> str:
    """Returns the command that measures a model."""
    return f"dfsc-tune bench --network {model.network} --image-size {model.image_size}"


def read_throughput(path: Path) -> Throughput:
    """Reads the throughput from a benchmark's record.

    Raises:
        UserError: the file is not a benchmark record.
    """
    try:
        return _throughput(path, validate(BenchRecord, read_yaml(path), source=str(path)))
    except UserError as error:
        raise UserError(
            f"{error}; it is not a benchmark record, or is damaged: delete it and make a new one "
            "with dfsc-tune bench"
        ) from error


def find_throughput(results: Path, model: ModelConfig, on_gpu: bool) -> Throughput | None:
    """Finds a results folder's newest record of this model on this kind of device, if any.

    Raises:
        UserError: there is no such record, but a file that is damaged or not a record.
    """
    found: list[Throughput] = []
    damage: UserError | None = None
    for path in sorted((results / BENCHMARKS).glob("*.yaml")):
        try:
            throughput = read_throughput(path)
        except UserError as error:
            damage = error
            continue
        same_model = (throughput.network, throughput.image_size) == (
            model.network,
            model.image_size,
        )
        if same_model and throughput.on_gpu == on_gpu:
            found.append(throughput)
    if damage and not found:
        raise damage
    return max(found, key=lambda throughput: throughput.created, default=None)


def guess_throughput(
    model: ModelConfig, on_gpu: bool, num_cpus: int, cpus_per_trial: int
) -> Throughput:
    """Guesses the throughput from a step's FLOPs and the FLOP/s that a device may reach.

    Trials that share a GPU are together as fast as one; on a CPU each has cores of its own.
    """
    flops = _FLOPS_A_PIXEL[model.network] * model.image_size**2
    # Threads beyond the machine's cores bring nothing.
    of_a_trial = _GUESSED_FLOPS_A_CORE * min(cpus_per_trial, num_cpus) / flops
    most_at_once = max(1, num_cpus // cpus_per_trial)
    on_cpu = {count: count * of_a_trial for count in range(1, most_at_once + 1)}
    rates = {1: _GUESSED_FLOPS_A_GPU / flops} if on_gpu else on_cpu
    return Throughput(
        source="a guess",
        created="",
        device=f"any GPU, at {_GUESSED_FLOPS_A_GPU / 1e12:.0f} TFLOP/s"
        if on_gpu
        else f"any CPU, at {_GUESSED_FLOPS_A_CORE / 1e9:.0f} GFLOP/s a core",
        on_gpu=on_gpu,
        num_gpus=1 if on_gpu else 0,
        num_cpus=num_cpus,
        network=model.network,
        image_size=model.image_size,
        steps_per_second=rates,
        seconds_per_scored_image=_FORWARD_SHARE / rates[1],
        seconds_to_start=0.0,
    )


def _throughput(path: Path, record: BenchRecord) -> Throughput:
    hardware, scoring, start = record.hardware, record.scoring, record.start
    together = {x.num_trials: x.steps_per_second for x in record.at_once if x.way == AS_A_SEARCH}
    num_scored = scoring.num_images * scoring.num_ema_momenta
    return Throughput(
        source=str(path),
        created=record.created,
        device=hardware.gpus[0] if record.on_gpu else hardware.processor,
        on_gpu=record.on_gpu,
        num_gpus=len(hardware.gpus) if record.on_gpu else 0,
        num_cpus=hardware.num_cpus,
        network=record.model.network,
        image_size=record.model.image_size,
        steps_per_second={1: 1 / record.training.seconds_per_step.fast.median, **together},
        seconds_per_scored_image=scoring.seconds_per_report.median / num_scored,
        seconds_to_start=start.seconds_to_build.median + start.seconds_of_first_steps.median,
    )
