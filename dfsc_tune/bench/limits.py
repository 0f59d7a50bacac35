"""What a step must do at least, and how fast this machine could do it."""

from __future__ import annotations

import functools

import torch
from torch.utils.flop_counter import FlopCounterMode

from dfsc_tune.bench.request import FAST, BenchRequest, timed
from dfsc_tune.config import ModelConfig, TrialConfig
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import build_pdn, feature_size, teacher_channels
from dfsc_tune.models.speed import compute_dtype
from dfsc_tune.training.losses import total_loss

# On a GPU, launching and waiting take some microseconds: its work shall take a millisecond.
_PEAK_SIZES, _GPU_PEAK_SIZES = (1024, 2048, 4096), (4096, 8192)
_COPY_BYTES, _GPU_COPY_BYTES = 1 << 28, 1 << 30


def step_flops(model: ModelConfig) -> int:
    """Floating-point operations of one step with cached teacher features, forward and backward."""
    channels, size = teacher_channels(model.network), feature_size(model.image_size)
    # Without numbers: only shapes count.
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        student, autoencoder = build_pdn(model.network, 2 * channels), build_autoencoder(model)
        images = torch.empty(1, 3, model.image_size, model.image_size)
        features = torch.empty(1, channels, size, size)
        losses = total_loss(
            features, student(images), autoencoder(images), TrialConfig(category="any").loss
        )
        losses.total.backward()
    return int(counter.get_total_flops())


def step_bytes(request: BenchRequest) -> int:
    """Bytes that a step must move at least.

    Weights are read forward and backward, their gradients written and read, Adam's two moments and
    the weights read and written, each average too: all float32. Each convolution's output is
    written and read once forward, and read once backward, where its gradient is written and read.
    """
    model = request.model
    channels = teacher_channels(model.network)
    # Without numbers: only shapes count.
    with torch.device("meta"):
        images = torch.empty(1, 3, model.image_size, model.image_size)
        networks = [build_pdn(model.network, 2 * channels), build_autoencoder(model)]
    num_outputs = 0

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal num_outputs
        num_outputs += output.numel()

    for network in networks:
        for layer in network:
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(count)
        with torch.no_grad():
            network(images)
    student, autoencoder = (sum(x.numel() for x in net.parameters()) for net in networks)
    item = compute_dtype(FAST, request.device).itemsize
    weights = 4 * (10 * (student + autoencoder) + 2 * len(request.ema_momenta) * student)
    return weights + 5 * item * num_outputs


def measure_peak_flops(device: str, dtype: torch.dtype) -> float:
    """The most floating-point operations a second that a matrix product reached."""
    best = 0.0
    for size in _GPU_PEAK_SIZES if device.startswith("cuda") else _PEAK_SIZES:
        a = torch.randn(size, size, device=device, dtype=dtype)
        product = functools.partial(torch.mm, a, a.clone())
        product()
        seconds = min(timed(product, device) for _ in range(5))
        best = max(best, 2 * size**3 / seconds)
    return best


def measure_bandwidth(device: str) -> float:
    """Bytes a second read and written by a copy too large for any cache."""
    num_bytes = _GPU_COPY_BYTES if device.startswith("cuda") else _COPY_BYTES
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = min(timed(functools.partial(target.copy_, source), device) for _ in range(5))
    return 2 * num_bytes / seconds
