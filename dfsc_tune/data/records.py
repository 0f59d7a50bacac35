"""The records of a data folder: an image, a defect's entry, a category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

RENDERED_FILE = "builtin.json"
"""This file, in the folder of a category with rendered images, records how they were made."""

DefectKind = Literal["logical", "structural"]
Kind = Literal["good", "logical", "structural"]
Layout = Literal["loco", "mvtec_ad"]


@dataclass(frozen=True)
class DefectEntry:
    """An entry of `defects_config.json`: one pixel value, its defect and the saturation threshold.

    `saturation_threshold` is a share of the defect's area if `relative_saturation`, else a number
    of pixels of the original image.
    """

    name: str
    saturation_threshold: float
    relative_saturation: bool


@dataclass(frozen=True)
class ImageRecord:
    """One image file, and its labels from names and folders alone."""

    path: Path
    # Relative to the category folder, posix: "test/logical_anomalies/003.png".
    name: str
    kind: Kind
    # "good" for good images.
    defect_type: str
    mask_paths: tuple[Path, ...] = ()

    @property
    def lacks_mask(self) -> bool:
        """True if the image is anomalous and has no mask."""
        return self.kind != "good" and not self.mask_paths


@dataclass(frozen=True)
class Category:
    """The images of one product line, split; records are in natural order of their names."""

    name: str
    root: Path
    layout: Layout
    train: tuple[ImageRecord, ...]
    validation: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]
    # By pixel value; empty if the category has no defects_config.json.
    defect_entries: Mapping[int, DefectEntry] = field(default_factory=dict)
    # Assumptions made, one sentence each, for the user to read.
    notes: tuple[str, ...] = ()

    @property
    def rendered(self) -> bool:
        """True for built-in data, whose categories have MVTec LOCO's names but not its images."""
        return (self.root / RENDERED_FILE).exists()

    @property
    def splits(self) -> dict[str, tuple[ImageRecord, ...]]:
        """The records by split: "train", "validation", "test"."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """Every record of the category."""
        return self.train + self.validation + self.test
