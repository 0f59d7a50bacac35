"""How many trials to run at once on one device: measured with trials in processes of their own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import torch

from dfsc_tune.bench import FAST, BenchRequest, generated_data
from dfsc_tune.errors import UserError
from dfsc_tune.train import Training

# A further trial must add this share to the whole, else it only takes memory.
_LEAST_GAIN = 0.05
_MEMORY_SHARE = 0.9
_STEPS_AT_ONCE = 10
_WARM_UP_STEPS = 10
_START_SECONDS = 300

_barrier: Barrier
"""Of the processes that are measured together; set as each starts."""


@dataclass(frozen=True)
class Packing:
    """What some trials at once achieved on one device."""

    num_trials: int
    threads_per_trial: int
    steps_per_second: float
    """Of all together."""
    peak_bytes_per_trial: int
    """GPU memory that each process held, its context left out; 0 on a CPU."""


def measure_packing(
    request: BenchRequest,
    counts: Sequence[int],
    num_threads: int,
    progress: Callable[[str], None],
    data_bytes: int = 0,
) -> list[Packing]:
    """Steps per second of several trials at once, each a process, for each of some counts.

    Args:
        request: what to train, where, and how long each measurement takes.
        counts: numbers of trials, ascending; those that would not fit into memory are left out.
        num_threads: CPU threads, shared out among the trials.
        progress: told what is being measured.
        data_bytes: GPU memory that a real trial's images take beyond the generated ones.

    Raises:
        UserError: a process failed.
    """
    found: list[Packing] = []
    for count in counts:
        if found and not _fits(
            count * (found[-1].peak_bytes_per_trial + data_bytes), request.device
        ):
            break
        progress(f"training {count} at once")
        found.append(_measure(request, count, max(1, num_threads // count)))
    return found


def best_packing(found: Sequence[Packing]) -> Packing:
    """The fewest trials at once beyond which more add next to nothing.

    Args:
        found: of `measure_packing`, ascending, at least one.
    """
    best = found[0]
    for packing in found[1:]:
        if packing.steps_per_second >= best.steps_per_second * (1 + _LEAST_GAIN):
            best = packing
    return best


def _measure(request: BenchRequest, count: int, threads: int) -> Packing:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    with ProcessPoolExecutor(count, context, _set_barrier, (barrier,)) as pool:
        # A process waits at the barrier before it would take another's turn: each runs one.
        running = [pool.submit(_run, request, threads) for _ in range(count)]
        try:
            answers = [future.result() for future in running]
        except (BrokenProcessPool, RuntimeError) as error:
            raise UserError(
                f"{count} trials at once failed on {request.device} ({error}); try fewer"
            ) from error
    return Packing(
        num_trials=count,
        threads_per_trial=threads,
        steps_per_second=sum(rate for rate, _ in answers),
        peak_bytes_per_trial=max(memory for _, memory in answers),
    )


def _set_barrier(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _run(request: BenchRequest, threads: int) -> tuple[float, int]:
    """Steps per second and GPU memory of one process that trains together with the others."""
    torch.set_num_threads(threads)
    try:
        training = Training(request.config(FAST), generated_data(request, FAST))
        training.run(_WARM_UP_STEPS)
    except RuntimeError:
        # Nobody shall wait for a process that has not come this far.
        _barrier.abort()
        raise
    _barrier.wait(_START_SECONDS)
    start = time.perf_counter()
    while (seconds := time.perf_counter() - start) < request.seconds_per_round:
        training.run(training.step + _STEPS_AT_ONCE)
    on_gpu = request.device.startswith("cuda")
    memory = torch.cuda.max_memory_reserved(request.device) if on_gpu else 0
    return (training.step - _WARM_UP_STEPS) / seconds, memory


def _fits(num_bytes: int, device: str) -> bool:
    if not device.startswith("cuda"):
        return True
    return num_bytes <= _MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
