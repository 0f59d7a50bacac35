"""Makes a plain step fast on a device by its precision, its memory layout and a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from dfsc_tune.config import SpeedConfig

# Steps before a capture: they let cuDNN choose its kernels and the optimizer make its state.
_EAGER_STEPS = 3
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def compute_dtype(config: SpeedConfig, device: str) -> torch.dtype:
    """Returns the number format of the convolutions: the settings' own, or the device's best."""
    if config.precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.bfloat16 if config.precision == "bfloat16" else torch.float32


def has_bfloat16(device: str) -> bool:
    """Returns whether the device multiplies bfloat16 matrices natively, which makes them fast."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not hasattr(torch.cpu, "get_capabilities"):
        return False  # Older releases of torch have no public way to ask.
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _BFLOAT16_INSTRUCTIONS)


def autocast(dtype: torch.dtype, device: str) -> torch.autocast:
    """Returns the context in which networks compute in `dtype`; convert their output to float32.

    Args:
        dtype: from `compute_dtype`.
        device: where the networks are.
    """
    return torch.autocast(device.split(":")[0], dtype, enabled=dtype != torch.float32)


def memory_format(config: SpeedConfig) -> torch.memory_format:
    """Returns the memory layout of images and networks."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def place(network: nn.Module, config: SpeedConfig, device: str) -> None:
    """Moves a network to its device and memory layout, in place."""
    network.to(device)
    # PyTorch documents `to(memory_format=…)`, but its stubs leave it out.
    cast(Any, network).to(memory_format=memory_format(config))


class GraphedStep:
    """Takes steps: eagerly at first, then by replaying a CUDA graph of one.

    The step must do the same to the same tensors at each call and never read from the device. Its
    eager calls are steps like all others, so no step is computed twice or thrown away.
    """

    def __init__(self, step: Callable[[], object], device: str) -> None:
        self._step = step
        self._device = torch.device(device)
        self._eager_left = _EAGER_STEPS
        self._stream = torch.cuda.Stream(self._device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, count: int) -> None:
        """Takes `count` steps."""
        for _ in range(count):
            if self._eager_left:
                self._eager_left -= 1
                self._run_on_side_stream()
            else:
                self._launch()

    def _launch(self) -> None:
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # Capture records the step and runs nothing.
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._step()
        self._graph.replay()

    def _run_on_side_stream(self) -> None:
        # A capture must not overlap with work that the default stream has not finished.
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._step()
        current.wait_stream(self._stream)
