"""The frozen teacher: where its weights come from, and its features normalised per channel."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dfsc_tune.config import ModelConfig, Network
from dfsc_tune.errors import UserError
from dfsc_tune.models.pdn import build_pdn, normalize_images, teacher_channels

_RANDOM_SEED = 0
_MIN_STD = 1e-6


class Teacher(nn.Module):
    """A frozen PDN whose output is normalised per channel over a category's training images."""

    mean: Tensor
    std: Tensor

    def __init__(self, pdn: nn.Sequential) -> None:
        super().__init__()
        self.pdn = pdn
        channels = cast(nn.Conv2d, pdn[-1]).out_channels
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised features (B, C, h, h) of ImageNet-normalised images (B, 3, S, S)."""
        return cast(Tensor, (self.pdn(images) - self.mean) / self.std)


def load_teacher(model: ModelConfig) -> Teacher:
    """The teacher that the settings name, not yet normalised; without one, random features.

    Raises:
        UserError: the weights cannot be read or are those of another network.
    """
    pdn = build_pdn(model.network, teacher_channels(model.network))
    if model.teacher is None:
        _fill_randomly(pdn)
    else:
        weights = read_weights(Path(model.teacher))
        _load_in_layer_order(pdn, weights, model.network, Path(model.teacher))
    return Teacher(pdn)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth file without running code from it.

    Raises:
        UserError: the file is missing, damaged, or holds something else than tensors.
    """
    if not path.is_file():
        raise UserError(f"no teacher weights at {path}; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # On a pickle of another protocol torch warns, before it refuses it anyway.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, or is damaged; give a state dict saved by torch.save "
            "or .safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no weights file; fetch or save it again") from error
    if not isinstance(weights, dict) or not all(isinstance(x, Tensor) for x in weights.values()):
        raise UserError(f"{path} is no state dict (names with tensors); save teacher.state_dict()")
    return weights


def teacher_identity(teacher: Teacher) -> str:
    """The sha256 of the PDN's weights: results of different teachers are not comparable."""
    digest = hashlib.sha256()
    for name, tensor in sorted(teacher.pdn.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fit_channel_statistics(teacher: Teacher, features: npt.NDArray[np.float32]) -> None:
    """Sets the teacher's mean and population std per channel.

    Args:
        teacher: changed in place.
        features: (N, C, h, h), its raw output for all training images.
    """
    # In float64, image by image: a float32 sum over a million entries loses digits.
    count = features.size / features.shape[1]
    mean = _channel_sum(image for image in features) / count
    centred = (image.astype(np.float64) - mean[:, None, None] for image in features)
    variance = _channel_sum(image**2 for image in centred) / count
    teacher.mean.copy_(torch.from_numpy(mean).view(1, -1, 1, 1))
    teacher.std.copy_(torch.from_numpy(np.sqrt(variance)).view(1, -1, 1, 1))
    # A dead channel is constant; dividing by one leaves it at 0.
    teacher.std[teacher.std < _MIN_STD] = 1.0


def teacher_features(
    teacher: Teacher, pixels: npt.NDArray[np.uint8], batch_size: int = 16, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """The teacher's features (N, C, h, h) of uint8 images (N, 3, S, S), computed in batches."""
    teacher = teacher.to(device)
    batches = []
    with torch.inference_mode():
        for start in range(0, len(pixels), batch_size):
            # A copy: the array may be shared read-only memory.
            batch = torch.tensor(pixels[start : start + batch_size], device=device)
            batches.append(teacher(normalize_images(batch)).cpu().numpy())
    return np.concatenate(batches)


def _channel_sum(images: Iterable[npt.NDArray[np.floating]]) -> npt.NDArray[np.float64]:
    total = np.float64(0)
    for image in images:
        total = total + image.sum(axis=(1, 2), dtype=np.float64)
    return cast("npt.NDArray[np.float64]", total)


def _fill_randomly(pdn: nn.Sequential) -> None:
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
    for layer in pdn:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def _load_in_layer_order(
    pdn: nn.Sequential, weights: dict[str, Tensor], network: Network, path: Path
) -> None:
    """Loads weights whose names differ but whose layers come in the same order.

    Known names: the indices of nelson1425/EfficientAD, anomalib's `conv1`…, and our own `pdn.0`….
    """
    given = [weights[name] for name in sorted(weights, key=_layer_key)]
    expected = pdn.state_dict()
    names = sorted(expected, key=_layer_key)
    if [x.shape for x in given] != [expected[name].shape for name in names]:
        raise UserError(
            f"{path} holds the weights of another network than '{network}'; "
            "set model.network to the one it was made for"
        )
    pdn.load_state_dict({name: x.float() for name, x in zip(names, given, strict=True)})


def _layer_key(name: str) -> tuple[int, str]:
    number = re.search(r"\d+", name)
    return (int(number.group()) if number else -1, name.rsplit(".", 1)[-1])
