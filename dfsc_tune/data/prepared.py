"""Prepared images, as trials use them: pixels, teacher features, original sizes, labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dfsc_tune.data.records import ImageRecord


@dataclass(frozen=True)
class PreparedImages:
    """Some images of one category; trials may share the arrays: never write to them."""

    records: tuple[ImageRecord, ...]
    pixels: npt.NDArray[np.uint8]
    """(N, 3, S, S) RGB."""
    features: npt.NDArray[np.floating]
    """(N, C, h, h), the teacher's, normalised per channel; float16 or float32."""
    sizes: npt.NDArray[np.int32]
    """(N, 2) original heights and widths."""

    @property
    def kinds(self) -> list[str]:
        """N times good, logical or structural."""
        return [record.kind for record in self.records]

    @property
    def defect_types(self) -> list[str]:
        """N names; those of synthetic anomalies are their recipes'."""
        return [record.defect_type for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __add__(self, others: PreparedImages) -> PreparedImages:
        """Returns these images followed by others."""
        return PreparedImages(
            records=(*self.records, *others.records),
            pixels=np.concatenate([self.pixels, others.pixels]),
            features=np.concatenate([self.features, others.features]),
            sizes=np.concatenate([self.sizes, others.sizes]),
        )

    def on(self, device: str) -> ResidentImages:
        """Returns these images on a device; on the CPU they share the arrays' memory."""
        return ResidentImages(
            pixels=shared_tensor(self.pixels, device),
            features=shared_tensor(self.features, device),
            sizes=self.sizes,
            kinds=self.kinds,
            defect_types=self.defect_types,
        )


@dataclass(frozen=True)
class ResidentImages:
    """Prepared images as tensors on a device; trials may share them: never write to them."""

    pixels: torch.Tensor
    """(N, 3, S, S) uint8 RGB."""
    features: torch.Tensor
    """(N, C, h, h), float16 or float32."""
    sizes: npt.NDArray[np.int32]
    """(N, 2) original heights and widths."""
    kinds: list[str]
    """N times good, logical or structural."""
    defect_types: list[str]
    """N names; those of synthetic anomalies are their recipes'."""

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: Sequence[int]) -> ResidentImages:
        """Returns copies of the images at some indices, which may repeat."""
        chosen = torch.tensor(indices, device=self.pixels.device)
        return ResidentImages(
            pixels=self.pixels[chosen],
            features=self.features[chosen],
            sizes=self.sizes[list(indices)],
            kinds=[self.kinds[index] for index in indices],
            defect_types=[self.defect_types[index] for index in indices],
        )


def shared_tensor(array: npt.NDArray[Any], device: str) -> torch.Tensor:
    """Returns the array as a tensor, without a copy on the CPU: never write to it in place."""
    with warnings.catch_warnings():
        # torch warns that shared arrays are read-only, which they should be.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)
