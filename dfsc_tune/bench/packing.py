"""Measures the steps per second of several trials at once on one device, a process for each."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from dfsc_tune.bench.request import FAST, BenchRequest, generated_data, synchronize
from dfsc_tune.errors import UserError
from dfsc_tune.training.train import Training

_MEMORY_SHARE = 0.9
_STEPS_A_TURN = 10
_START_SECONDS = 300

_barrier: Barrier
"""The barrier of the processes that are measured together; set as each starts."""


@dataclass(frozen=True)
class Packing:
    """The speed and memory of several trials at once on one device."""

    num_trials: int
    threads_per_trial: int
    steps_per_second: float
    """Of all together."""
    peak_bytes_per_trial: int
    """GPU memory that a process held, without its context; 0 on a CPU."""


def measure_packing(
    request: BenchRequest,
    counts: Sequence[int],
    num_threads: int,
    progress: Callable[[str], None],
    note: Callable[[str], None],
    data_bytes: int = 0,
) -> list[Packing]:
    """Measures the steps per second of several trials at once, for each number of trials.

    The trials run as a search runs them; if NVIDIA's MPS runs, they share a GPU through it.

    Args:
        request: the model, the device, and the length of each measurement.
        counts: numbers of trials, ascending; those that do not fit into memory are left out.
        num_threads: CPU threads, divided among the trials.
        progress: called with what is being measured.
        note: called with the reason if a number of trials fails; larger numbers are not tried.
        data_bytes: GPU memory that a real trial's images take beyond the generated ones.

    Raises:
        UserError: the first count failed.
    """
    found: list[Packing] = []
    for count in counts:
        if found and not _fits(count * (found[-1].peak_bytes_per_trial + data_bytes), request):
            break
        progress(f"training {count} at once")
        try:
            found.append(_measure(request, count, num_threads))
        except UserError as error:
            if not found:
                raise
            note(str(error))
            break
    return found


def mps_runs() -> bool:
    """Returns whether NVIDIA's Multi-Process Service runs, through which processes share a GPU."""
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return (Path(folder) / "control").exists()


def _measure(request: BenchRequest, count: int, num_threads: int) -> Packing:
    threads = max(1, num_threads // count)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    with ProcessPoolExecutor(count, context, _set_barrier, (barrier,)) as pool:
        # Each process runs one trial: it waits at the barrier before it could take a second one.
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
    """Trains in one process together with the others; returns steps per second and GPU memory."""
    torch.set_num_threads(threads)
    try:
        training = Training(request.config(FAST), generated_data(request, FAST))
        training.run(_STEPS_A_TURN)
        synchronize(request.device)
    except RuntimeError:
        # The other processes must not wait for one that failed before the barrier.
        _barrier.abort()
        raise
    _barrier.wait(_START_SECONDS)
    start = time.perf_counter()
    most = request.num_steps - _STEPS_A_TURN
    while time.perf_counter() - start < request.seconds_per_round and training.step <= most:
        training.run(training.step + _STEPS_A_TURN)
    synchronize(request.device)
    seconds = time.perf_counter() - start
    memory = torch.cuda.max_memory_reserved(request.device) if request.on_gpu else 0
    return (training.step - _STEPS_A_TURN) / seconds, memory


def _fits(num_bytes: int, request: BenchRequest) -> bool:
    if not request.on_gpu:
        return True
    return (
        num_bytes <= _MEMORY_SHARE * torch.cuda.get_device_properties(request.device).total_memory
    )
