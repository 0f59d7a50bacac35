"""Draws synthetic anomalies on one sheet: a row a recipe, each beside its good image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from dfsc_tune.synthetic.anomalies import RECIPES, Anomaly

_LABEL_WIDTH = 110
_OUTLINE = (255, 0, 120)


def contact_sheet(
    good: npt.NDArray[np.uint8], anomalies: Sequence[Anomaly], columns: int = 4
) -> Image.Image:
    """The first anomalies of each recipe, what has changed outlined on the good image.

    Args:
        good: (N, 3, S, S), the images that the anomalies were made from.
        anomalies: of any recipes.
        columns: how many of each recipe to show.
    """
    size = good.shape[-1]
    sheet = Image.new("RGB", (_LABEL_WIDTH + 2 * size * columns, size * len(RECIPES)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, (kind, _)) in enumerate(RECIPES.items()):
        draw.text((6, row * size + size // 2 - 12), f"{kind}\n{name}", fill="black")
        chosen = [anomaly for anomaly in anomalies if anomaly.recipe == name][:columns]
        for column, anomaly in enumerate(chosen):
            before = good[anomaly.source].transpose(1, 2, 0).copy()
            before[ndimage.binary_dilation(anomaly.mask) & ~anomaly.mask] = _OUTLINE
            left = _LABEL_WIDTH + 2 * size * column
            sheet.paste(Image.fromarray(before), (left, row * size))
            after = np.ascontiguousarray(anomaly.pixels.transpose(1, 2, 0))
            sheet.paste(Image.fromarray(after), (left + size, row * size))
    return sheet
