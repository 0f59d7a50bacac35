"""Defines the nouns of a data folder: an image's record, a kind of defect, a category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

RENDERED_FILE = "builtin.json"
"""Lies in a category's folder where its images were rendered, and says how."""

DefectKind = Literal["logical", "structural"]
Kind = Literal["good", "logical", "structural"]
Layout = Literal["loco", "mvtec_ad"]


@dataclass(frozen=True)
class DefectEntry:
    """What `defects_config.json` says of one pixel value: the defect and when it is covered.

    `saturation_threshold` is a share of the defect's area where `relative_saturation`, else a
    number of pixels of the original image.
    """

    name: str
    saturation_threshold: float
    relative_saturation: bool


@dataclass(frozen=True)
class ImageRecord:
    """One image file and what is known of it without decoding it."""

    path: Path
    # Relative to the category folder, posix: "test/logical_anomalies/003.png".
    name: str
    kind: Kind
    # "good" for good images.
    defect_type: str
    mask_paths: tuple[Path, ...] = ()

    @property
    def lacks_mask(self) -> bool:
        """Whether the image is anomalous and no mask says where."""
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
    # By pixel value; empty where the category has no defects_config.json.
    defect_entries: Mapping[int, DefectEntry] = field(default_factory=dict)
    # What was assumed, one sentence each, for the user to read.
    notes: tuple[str, ...] = ()

    @property
    def rendered(self) -> bool:
        """Whether the images were rendered here: under MVTec LOCO's names, but not its images."""
        return (self.root / RENDERED_FILE).exists()

    @property
    def splits(self) -> dict[str, tuple[ImageRecord, ...]]:
        """The records by split: "train", "validation", "test"."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """Every record of the category."""
        return self.train + self.validation + self.test
