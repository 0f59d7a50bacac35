"""How fast several trials at once are on one device, by each way of running them together."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import torch

from dfsc_tune.bench.mps import check_mps_in_use, has_mps, private_mps
from dfsc_tune.bench.request import FAST, BenchRequest, generated_data, synchronize
from dfsc_tune.errors import UserError
from dfsc_tune.training.train import Training

PROCESSES = "processes"
"""Each trial in a process of its own, as a search runs them."""
PROCESSES_WITH_MPS = "processes_with_mps"
"""The same, sharing a GPU's cores by MPS instead of taking turns on it."""
ONE_PROCESS = "one_process"
"""All in one process that launches some steps of each in turn: on a GPU each on a stream of its
own, so that they run side by side; on a CPU one after the other with all threads. They share their
images and features."""

# A further trial must add this share to the whole, else it only takes memory.
_LEAST_GAIN = 0.05
_MEMORY_SHARE = 0.9
_STEPS_A_TURN = 10
_START_SECONDS = 300

_barrier: Barrier
"""Of the processes that are measured together; set as each starts."""


@dataclass(frozen=True)
class Packing:
    """What some trials at once achieved on one device."""

    way: str
    num_trials: int
    threads_per_trial: int
    steps_per_second: float
    """Of all together."""
    peak_bytes_per_trial: int
    """GPU memory that the processes held, their contexts left out, by trial; 0 on a CPU."""


def packing_ways(device: str) -> tuple[str, ...]:
    """The ways there are on a device of this machine."""
    with_mps = device.startswith("cuda") and has_mps()
    return (PROCESSES, PROCESSES_WITH_MPS, ONE_PROCESS) if with_mps else (PROCESSES, ONE_PROCESS)


def measure_packing(
    request: BenchRequest,
    counts: Sequence[int],
    num_threads: int,
    progress: Callable[[str], None],
    *,
    data_bytes: int = 0,
    ways: Sequence[str] = (PROCESSES,),
    note: Callable[[str], None] | None = None,
) -> list[Packing]:
    """Steps per second of several trials at once, for each of some counts and ways.

    Args:
        request: what to train, where, and how long each measurement takes.
        counts: numbers of trials, ascending; those that would not fit into memory are left out.
        num_threads: CPU threads, shared out among the trials.
        progress: told what is being measured.
        data_bytes: GPU memory that a real trial's images take beyond the generated ones.
        ways: how the trials run together.
        note: told of what failed, which is then left out.

    Raises:
        UserError: a process failed and there is no `note` to tell.
    """
    found: dict[str, list[Packing]] = {way: [] for way in ways}
    for count in counts:
        for way, fewer in found.items():
            if fewer and not _fits(
                count * (fewer[-1].peak_bytes_per_trial + data_bytes), request.device
            ):
                continue
            progress(f"training {count} at once, {way.replace('_', ' ')}")
            try:
                fewer.append(_measure(request, way, count, num_threads))
            except UserError as error:
                if note is None:
                    raise
                note(f"{way}: {error}")
    return [packing for packings in found.values() for packing in packings]


def best_packing(found: Sequence[Packing]) -> Packing:
    """The fewest trials at once beyond which more add next to nothing.

    Args:
        found: of `measure_packing`, one way, ascending, at least one.
    """
    best = found[0]
    for packing in found[1:]:
        if packing.steps_per_second >= best.steps_per_second * (1 + _LEAST_GAIN):
            best = packing
    return best


def _measure(request: BenchRequest, way: str, count: int, num_threads: int) -> Packing:
    num_processes, threads = _shares(way, count, num_threads)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(num_processes)
    with (
        private_mps() if way == PROCESSES_WITH_MPS else nullcontext(),
        ProcessPoolExecutor(num_processes, context, _set_barrier, (barrier,)) as pool,
    ):
        # A process waits at the barrier before it would take another's turn: each runs one.
        running = [
            pool.submit(_run, request, threads, count // num_processes)
            for _ in range(num_processes)
        ]
        try:
            answers = [future.result() for future in running]
        except (BrokenProcessPool, RuntimeError) as error:
            raise UserError(
                f"{count} trials at once failed on {request.device} ({error}); try fewer"
            ) from error
        if way == PROCESSES_WITH_MPS:
            check_mps_in_use()
    return Packing(
        way=way,
        num_trials=count,
        threads_per_trial=threads,
        steps_per_second=sum(rate for rate, _ in answers),
        peak_bytes_per_trial=max(memory for _, memory in answers) * num_processes // count,
    )


def _shares(way: str, count: int, num_threads: int) -> tuple[int, int]:
    """How many processes hold so many trials, and the CPU threads of each."""
    num_processes = 1 if way == ONE_PROCESS else count
    return num_processes, max(1, num_threads // num_processes)


def _set_barrier(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _run(request: BenchRequest, threads: int, num_trials: int) -> tuple[float, int]:
    """Steps per second and GPU memory of one process that trains together with the others."""
    torch.set_num_threads(threads)
    try:
        data = generated_data(request, FAST)
        trainings = [Training(request.config(FAST), data) for _ in range(num_trials)]
        streams = [torch.cuda.Stream(request.device) if request.on_gpu else None for _ in trainings]
        # No stream may run ahead of what the default stream has yet to put into the tensors.
        synchronize(request.device)
        take_turns(trainings, streams)
        synchronize(request.device)
    except RuntimeError:
        # Nobody shall wait for a process that has not come this far.
        _barrier.abort()
        raise
    _barrier.wait(_START_SECONDS)
    first = sum(training.step for training in trainings)
    start = time.perf_counter()
    most = request.num_steps - _STEPS_A_TURN
    while time.perf_counter() - start < request.seconds_per_round and trainings[0].step <= most:
        take_turns(trainings, streams)
    synchronize(request.device)
    seconds = time.perf_counter() - start
    memory = torch.cuda.max_memory_reserved(request.device) if request.on_gpu else 0
    return (sum(training.step for training in trainings) - first) / seconds, memory


def take_turns(trainings: Sequence[Training], streams: Sequence[torch.cuda.Stream | None]) -> None:
    """Launches some steps of each training, when its last ones are done.

    Args:
        trainings: on the same device.
        streams: on a GPU, one a training; there their steps run side by side, for each records a
            graph with memory of its own. On a CPU None for each.
    """
    for training, stream in zip(trainings, streams, strict=True):
        if stream is not None:
            stream.synchronize()
        with torch.cuda.stream(stream):
            training.launch(training.step + _STEPS_A_TURN)


def _fits(num_bytes: int, device: str) -> bool:
    if not device.startswith("cuda"):
        return True
    return num_bytes <= _MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
