"""Draws a contact sheet of synthetic anomalies: a row per recipe, each beside its good image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from dfsc_tune.synthetic.anomalies import Anomaly

_LABEL_WIDTH = 110
_OUTLINE = (255, 0, 120)


def contact_sheet(
    good: npt.NDArray[np.uint8], anomalies: Sequence[Anomaly], columns: int = 4
) -> Image.Image:
    """Draws the first anomalies of each recipe, with the change outlined on the good image.

    Args:
        good: (N, 3, S, S), the images that the anomalies were made from.
        anomalies: at least one, of any recipes.
        columns: number of anomalies to show of each recipe.
    """
    size = good.shape[-1]
    rows: dict[str, list[Anomaly]] = {}
    for anomaly in anomalies:
        rows.setdefault(anomaly.recipe, []).append(anomaly)
    sheet = Image.new("RGB", (_LABEL_WIDTH + 2 * size * columns, size * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, made) in enumerate(rows.items()):
        draw.text((6, row * size + size // 2 - 12), f"{made[0].kind}\n{name}", fill="black")
        for column, anomaly in enumerate(made[:columns]):
            before = good[anomaly.source].transpose(1, 2, 0).copy()
            before[ndimage.binary_dilation(anomaly.mask) & ~anomaly.mask] = _OUTLINE
            left = _LABEL_WIDTH + 2 * size * column
            sheet.paste(Image.fromarray(before), (left, row * size))
            after = np.ascontiguousarray(anomaly.pixels.transpose(1, 2, 0))
            sheet.paste(Image.fromarray(after), (left + size, row * size))
    return sheet
