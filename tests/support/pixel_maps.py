"""Anomaly maps with defects: the official tool's cases and tiny problems."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from dfsc_tune.metrics import Defect, saturation_area

CASES = Path(__file__).parents[1] / "assets" / "metric_cases"
LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
quickly = settings(max_examples=100, deadline=None, database=None, derandomize=True)


def reference_case(index):
    """Return the maps, the defects and the expected results of one stored case."""
    expected = json.loads((CASES / "au_spro_cases.json").read_text())
    config = {entry["pixel_value"]: entry for entry in expected["defects_config"]}
    with np.load(CASES / "au_spro_cases.npz") as arrays:
        maps = arrays[f"case{index}_maps"]
        masks = arrays[f"case{index}_masks"]
        images = arrays[f"case{index}_mask_image"]
    defects = []
    for image, mask in zip(images, masks, strict=True):
        entry = config[mask.max()]
        area = saturation_area(
            entry["saturation_threshold"], entry["relative_saturation"], int((mask > 0).sum())
        )
        defects.append(Defect(int(image), mask > 0, area))
    return maps, defects, expected["cases"][f"case{index}"]


@st.composite
def pixel_problems(draw, max_images=4):
    """Tiny maps of differing sizes and types with many ties, and overlapping defects."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_levels = draw(st.sampled_from([1, 2, 4, 30, 10**6]))
    maps, defects = [], []
    for image in range(draw(st.integers(1, max_images))):
        shape = tuple(generator.integers(2, 7, size=2))
        dtype = generator.choice([np.float32, np.float64])
        maps.append((generator.integers(num_levels, size=shape) / 7).astype(dtype))
        for _ in range(generator.integers(image == 0, 3)):
            mask = generator.random(shape) < generator.choice([0.1, 0.5])
            mask[0, 0], mask[-1, -1] = True, False
            defects.append(Defect(image, mask, float(mask.sum() * generator.uniform(0.05, 1.2))))
    return maps, defects, draw(st.sampled_from([0.01, 0.05, 0.3, 0.77, 1.0]))
