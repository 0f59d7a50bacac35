"""Juice bottle: filled to a level with one of three juices, a matching fruit on its top label."""

import math
from dataclasses import dataclass, replace

import numpy as np

from dfsc_tune.data.builtin import blemishes
from dfsc_tune.data.builtin.bottle_parts import (
    LIQUID_FLOOR,
    Label,
    blot_icon,
    blot_text,
    icon_patch,
    liquid,
    paint_glass,
    paint_juice,
    paint_label,
    paint_table,
    tear_label,
)
from dfsc_tune.data.builtin.category import Category, DefectType, Dice
from dfsc_tune.data.builtin.drawing import Canvas, Colour, Patch, circle, mix, sign, turned

JUICES: dict[str, Colour] = {
    "orange": (0.76, 0.62, 0.20),
    "cherry": (0.36, 0.11, 0.08),
    "banana": (0.71, 0.68, 0.60),
}
"""Juice by the fruit that its label must show."""
UNKNOWN_FRUITS = ("plum", "strawberry", "apple")
LEVEL = -0.258
"""Height (y) of a good filling's surface."""
TOP_LABEL = (0.085, 0.085)
BOTTOM_LABEL = (0.085, 0.040)
"""Half the width and half the height of the labels."""
TOP_PLACE, BOTTOM_PLACE = 0.026, 0.296
"""Heights (y) of the labels' middles."""
TOP_AREA = 4 * TOP_LABEL[0] * TOP_LABEL[1]
BOTTOM_AREA = 4 * BOTTOM_LABEL[0] * BOTTOM_LABEL[1]
ICON_AREA = 0.0030
"""Footprint of a printed fruit."""

DEFECTS = (
    DefectType("missing_top_label", "logical", area=TOP_AREA),
    DefectType("missing_bottom_label", "logical", area=BOTTOM_AREA),
    DefectType("swapped_labels", "logical", area=2 * TOP_AREA),
    DefectType("damaged_label", "structural"),
    DefectType("rotated_label", "structural"),
    DefectType("misplaced_label_top", "logical", area=TOP_AREA),
    DefectType("misplaced_label_bottom", "logical", area=BOTTOM_AREA),
    DefectType("label_text_incomplete", "structural"),
    DefectType("empty_bottle", "logical"),
    DefectType("wrong_fill_level_too_much", "logical"),
    DefectType("wrong_fill_level_not_enough", "logical"),
    DefectType("misplaced_fruit_icon", "logical"),
    DefectType("missing_fruit_icon", "logical"),
    DefectType("unknown_fruit_icon", "structural"),
    DefectType("incomplete_fruit_icon", "structural"),
    DefectType("wrong_juice_type", "logical", area=ICON_AREA),
    DefectType("juice_color", "structural"),
    DefectType("contamination", "structural"),
)


@dataclass
class Bottle:
    """The contents of a bottle and its labels."""

    juice: Colour
    level: float
    """Height (y) of the surface; at LIQUID_FLOOR the bottle is empty."""
    top: Label
    bottom: Label


def _fill(rng: np.random.Generator) -> Bottle:
    """Returns a bottle that obeys the rule."""
    fruit = str(rng.choice(list(JUICES)))
    juice = mix(JUICES[fruit], (0.45, 0.42, 0.35), rng.normal(0.0, 0.03))
    top = replace(_stick(rng, TOP_PLACE, TOP_LABEL), fruit=fruit)
    top = replace(top, icon_x=rng.normal(0.0, 0.002), icon_y=rng.normal(0.0, 0.002))
    bottom = replace(_stick(rng, BOTTOM_PLACE, BOTTOM_LABEL), text="100% Juice")
    return Bottle(juice, LEVEL + rng.normal(0.0, 0.004), top, bottom)


def _stick(rng: np.random.Generator, y: float, half: tuple[float, float]) -> Label:
    """Returns a blank label stuck on by hand: a little off its place, a little askew."""
    x, y = rng.normal(0.0, 0.0035), y + rng.normal(0.0, 0.0035)
    return Label(x, y, rng.normal(0.0, 0.014), half)


def _shifted(label: Label, rng: np.random.Generator, up: float) -> Label:
    """Returns the label stuck clearly off its place, `up` 1 for higher and -1 for lower."""
    x, y = label.x + rng.uniform(-0.02, 0.02), label.y - up * rng.uniform(0.03, 0.08)
    return replace(label, x=x, y=y, angle=label.angle + rng.normal(0.0, 0.03))


def _break_labels(bottle: Bottle, defect: str, rng: np.random.Generator) -> None:
    """Applies the defects of the labels' places."""
    top, bottom = bottle.top, bottle.bottom
    if defect == "missing_top_label":
        bottle.top = replace(top, present=False)
    elif defect == "missing_bottom_label":
        bottle.bottom = replace(bottom, present=False)
    elif defect == "swapped_labels":
        bottle.top = replace(top, x=bottom.x, y=bottom.y - 0.03)
        bottle.bottom = replace(bottom, x=top.x, y=top.y)
    elif defect == "misplaced_label_top":
        bottle.top = _shifted(top, rng, sign(rng))
    elif defect == "misplaced_label_bottom":
        bottle.bottom = _shifted(bottom, rng, 1.0)
    elif defect == "rotated_label":
        turn = sign(rng) * rng.uniform(0.12, 0.6)
        if rng.random() < 0.5:
            bottle.top = replace(top, angle=top.angle + turn)
        else:
            bottle.bottom = replace(bottom, angle=bottom.angle + 0.6 * turn)


def _break_print(bottle: Bottle, defect: str, rng: np.random.Generator) -> None:
    """Applies the defects of the labels' print."""
    top = bottle.top
    if defect == "missing_fruit_icon":
        bottle.top = replace(top, fruit=None)
    elif defect == "wrong_juice_type":
        others = [fruit for fruit in JUICES if fruit != top.fruit]
        bottle.top = replace(top, fruit=str(rng.choice(others)))
    elif defect == "unknown_fruit_icon":
        bottle.top = replace(top, fruit=str(rng.choice(UNKNOWN_FRUITS)))
    elif defect == "misplaced_fruit_icon":
        x, y = turned(rng.uniform(0.022, 0.045), 0.0, rng.uniform(0.0, 2 * math.pi))
        bottle.top = replace(top, icon_x=x, icon_y=y)


def _break_filling(bottle: Bottle, defect: str, rng: np.random.Generator) -> None:
    """Applies the defects of the juice."""
    if defect == "empty_bottle":
        bottle.level = LIQUID_FLOOR
    elif defect == "wrong_fill_level_too_much":
        bottle.level -= rng.uniform(0.03, 0.12)
    elif defect == "wrong_fill_level_not_enough":
        bottle.level += rng.uniform(0.03, 0.20)
    elif defect == "juice_color":
        red, green, blue = rng.uniform(0.1, 0.8, 3).tolist()
        bottle.juice = mix(bottle.juice, (red, green, blue), rng.uniform(0.35, 0.8))


def draw(canvas: Canvas, dice: Dice, defect: str | None) -> None:
    """Draws a bottle, with the named defect if one is given."""
    good, rng = _fill(dice.scene), dice.defect
    bottle = replace(good)
    if defect:
        _break_labels(bottle, defect, rng)
        _break_print(bottle, defect, rng)
        _break_filling(bottle, defect, rng)
    lean = canvas.patch(dice.scene.normal(0.0, 0.004), 0.0, 2.0, dice.scene.normal(0.0, 0.006))
    paint_table(canvas, dice.texture)
    paint_juice(canvas, lean, bottle.juice, bottle.level, dice.texture)
    paint_glass(canvas, lean, dice.texture)
    for label in (bottle.top, bottle.bottom):
        paint_label(canvas, label, dice.texture)
    if defect:
        _mark(canvas, lean, good, bottle, defect)
    if defect == "damaged_label":
        tear_label(canvas, bottle.top if rng.random() < 0.6 else bottle.bottom, rng)
    elif defect == "label_text_incomplete":
        blot_text(canvas, bottle.bottom, rng)
    elif defect == "incomplete_fruit_icon":
        blot_icon(canvas, bottle.top, rng)
    elif defect == "contamination":
        y = rng.uniform(-0.24, 0.37)
        x = rng.uniform(-0.09, 0.09) * (1.0 if y > -0.08 else 0.4)
        blemishes.contaminate(canvas, rng, x, y, 0.7)


def _spot(label: Label) -> tuple[float, float, float, bool]:
    return label.x, label.y, label.angle, label.present


def _mark(canvas: Canvas, patch: Patch, good: Bottle, bottle: Bottle, defect: str) -> None:
    """Marks the places where the bottle differs from a good one and could be repaired."""
    for before, after in ((good.top, bottle.top), (good.bottom, bottle.bottom)):
        if _spot(before) != _spot(after):
            for label in (before, after):
                where, distance = label.distance(canvas)
                canvas.mark(where, distance < 0)
        elif (before.fruit, before.icon_x) != (after.fruit, after.icon_x):
            for label in (before, after):
                where = icon_patch(canvas, label)
                canvas.mark(where, circle(where.u, where.v, 0.036) < 0)
    filled = liquid(patch, good.level) < 0
    if good.level != bottle.level:
        canvas.mark(patch, filled ^ (liquid(patch, bottle.level) < 0))
    elif defect in ("juice_color", "wrong_juice_type"):
        canvas.mark(patch, filled)


CATEGORY = Category("juice_bottle", 0.5, (0.018, 0.018, 0.021), DEFECTS, draw)
