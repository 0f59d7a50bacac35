"""Small made categories: trays with two squares, of which one is missing or has a scratch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORY = "tray"
_SIZE = (96, 128)
DEFECTS = {"missing": (255, 1.0, True), "scratch": (254, 0.5, True), "dent": (253, 60, False)}


def draw_tray(path: Path, rng: np.random.Generator, kind: str) -> None:
    """Two bright squares on a grey ground; logical lacks one, structural has a scratch."""
    height, width = _SIZE
    image = rng.normal(90, 4, (height, width, 3))
    for index, left in enumerate((20, 76)):
        top = 30 + int(rng.integers(-4, 5))
        if not (kind == "logical" and index == 1):
            image[top : top + 32, left : left + 32] += (110, 60, -20)
    if kind == "structural":
        row = int(rng.integers(20, 70))
        image[row : row + 5, 10:118] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


def make_tray(root: Path, category: str = CATEGORY, num_train: int = 6, num_test: int = 4) -> Path:
    """A category in MVTec LOCO's layout, without masks."""
    rng = np.random.default_rng(0)
    folders = {
        "train/good": ("good", num_train),
        "validation/good": ("good", 3),
        "test/good": ("good", num_test),
        "test/logical_anomalies": ("logical", num_test),
        "test/structural_anomalies": ("structural", num_test),
    }
    for folder, (kind, count) in folders.items():
        for index in range(count):
            draw_tray(root / category / folder / f"{index:03d}.png", rng, kind)
    return root


def mark(category: Path, image: str, defects: dict[str, tuple[slice, slice]]) -> None:
    """Writes a mask file for each defect of a test image."""
    for number, (name, place) in enumerate(defects.items()):
        mask = np.zeros((96, 128), np.uint8)
        mask[place] = DEFECTS[name][0]
        path = category / "ground_truth" / image / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)


def make_masked_tray(root: Path, category: str = CATEGORY) -> Path:
    """A category with masks of three defect types; one image has two defects."""
    make_tray(root, category)
    for index in range(4):
        mark(root / category, f"logical_anomalies/{index:03d}", {"missing": np.s_[26:66, 76:108]})
        defects = {"scratch" if index < 2 else "dent": np.s_[40:50, 10:118]}
        if index == 3:
            defects["missing"] = np.s_[0:9, 0:9]
        mark(root / category, f"structural_anomalies/{index:03d}", defects)
    keys = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")
    config = [dict(zip(keys, (name, *entry), strict=True)) for name, entry in DEFECTS.items()]
    (root / category / "defects_config.json").write_text(json.dumps(config))
    return root
