"""Images as a trial uses them: pixels, the teacher's features, original sizes, labels."""

from __future__ import annotations

import warnings
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
    features: npt.NDArray[np.float32]
    """(N, C, h, h), the teacher's, normalised per channel."""
    sizes: npt.NDArray[np.int32]
    """(N, 2) original heights and widths."""

    @property
    def kinds(self) -> list[str]:
        """N times good, logical or structural."""
        return [record.kind for record in self.records]

    def __len__(self) -> int:
        return len(self.records)


def shared_tensor(array: npt.NDArray[Any], device: str) -> torch.Tensor:
    """The array as a tensor, without a copy on the CPU: never write to it in place."""
    with warnings.catch_warnings():
        # torch warns that shared arrays are read-only; that is what we want of them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)
