"""Breakfast box: two tangerines and a nectarine left; cereals over almonds and bananas right."""

import math
from dataclasses import dataclass, replace

import numpy as np

from dfsc_tune.data.builtin import blemishes
from dfsc_tune.data.builtin.breakfast_food import (
    NECTARINE,
    TANGERINE,
    Fruit,
    bruise,
    fruit_mask,
    paint_fruit,
)
from dfsc_tune.data.builtin.breakfast_parts import (
    BOUNDARY,
    Filling,
    Room,
    Spot,
    crack_box,
    paint_box,
    pour,
    room_distance,
)
from dfsc_tune.data.builtin.category import Category, DefectType, Dice
from dfsc_tune.data.builtin.drawing import BoolArray, Canvas, Patch, sign

TANGERINE_AREA, NECTARINE_AREA = math.pi * TANGERINE**2, math.pi * NECTARINE**2
SLOTS: dict[Room, tuple[tuple[float, float], ...]] = {
    "left": ((-0.375, -0.265), (-0.355, 0.005), (-0.235, 0.265), (-0.43, 0.29)),
    "right": ((0.04, -0.24), (0.30, -0.20), (0.22, 0.15), (0.40, 0.25)),
}
"""The fruits' places in each room; the last place of a room is for an extra fruit."""

DEFECTS = (
    DefectType("missing_almonds", "logical"),
    DefectType("missing_bananas", "logical"),
    DefectType("missing_toppings", "logical"),
    DefectType("missing_cereals", "logical"),
    DefectType("missing_cereals_and_toppings", "logical"),
    DefectType("2_nectarines_1_tangerine", "logical", area=NECTARINE_AREA),
    DefectType("1_nectarine_1_tangerine", "logical", area=TANGERINE_AREA),
    DefectType("0_nectarines_2_tangerines", "logical", area=NECTARINE_AREA),
    DefectType("0_nectarines_3_tangerines", "logical", area=NECTARINE_AREA),
    DefectType("3_nectarines_0_tangerines", "logical", area=2 * NECTARINE_AREA),
    DefectType("0_nectarines_1_tangerine", "logical", area=TANGERINE_AREA + NECTARINE_AREA),
    DefectType("0_nectarines_0_tangerines", "logical", area=2 * TANGERINE_AREA + NECTARINE_AREA),
    DefectType("0_nectarines_4_tangerines", "logical", area=2 * TANGERINE_AREA),
    DefectType("compartments_swapped", "logical"),
    DefectType("overflow", "logical"),
    DefectType("underflow", "logical"),
    DefectType("wrong_ratio", "logical"),
    DefectType("mixed_cereals", "structural"),
    DefectType("fruit_damaged", "structural"),
    DefectType("box_damaged", "structural"),
    DefectType("toppings_crushed", "structural"),
    DefectType("contamination", "structural"),
)


@dataclass
class Meal:
    """The contents of a breakfast box."""

    fruits: list[Fruit]
    filling: Filling


def _arrange(rng: np.random.Generator) -> Meal:
    """Returns a meal that obeys the rule."""
    nectarine = 2 if rng.random() < 0.7 else 0
    fruits = [_fruit(rng, slot == nectarine, slot) for slot in range(3)]
    boundary = BOUNDARY + rng.normal(0.0, 0.012)
    return Meal(fruits, Filling(boundary, slope=rng.normal(0.0, 0.03)))


def _fruit(rng: np.random.Generator, is_nectarine: bool, slot: int) -> Fruit:
    x, y = SLOTS["left"][slot]
    x, y = x + rng.normal(0.0, 0.011), y + rng.normal(0.0, 0.011)
    angle, size = rng.uniform(0.0, 2 * math.pi), rng.uniform(0.94, 1.05)
    return Fruit(is_nectarine, x, y, angle, size, int(rng.integers(2**31)))


def _recount(fruits: list[Fruit], defect: str, rng: np.random.Generator) -> list[Fruit]:
    """Returns the fruits of the defect's name: `<n>_nectarine(s)_<m>_tangerine(s)`."""
    words = defect.split("_")
    kinds = [True] * int(words[0]) + [False] * int(words[2])
    slots = [*rng.permutation(3).tolist(), 3][: len(kinds)]
    counted = []
    for is_nectarine, slot in zip(kinds, slots, strict=True):
        new = _fruit(rng, is_nectarine, slot)
        stays = slot < len(fruits) and fruits[slot].is_nectarine == is_nectarine
        counted.append(fruits[slot] if stays else new)
    return counted


def _refill(filling: Filling, defect: str, rng: np.random.Generator) -> Filling:
    """Returns the filling with its kinds and amounts changed by the defect."""
    if defect.startswith("missing"):
        words = defect.removeprefix("missing_").split("_")
        return replace(filling, absent=frozenset(words) - {"and"})
    if defect == "overflow":
        return replace(filling, swell=rng.uniform(0.025, 0.055))
    if defect == "underflow":
        return replace(filling, swell=-rng.uniform(0.09, 0.25))
    if defect == "wrong_ratio":
        moved = filling.boundary + sign(rng) * rng.uniform(0.08, 0.19)
        return replace(filling, boundary=moved)
    if defect == "mixed_cereals":
        x, y = rng.uniform(0.05, 0.4), rng.uniform(-0.32, 0.02)
        return replace(filling, mixed=Spot(x, y, rng.uniform(0.06, 0.16), rng.uniform(0.0, 9.0)))
    if defect == "toppings_crushed":
        x, y = rng.uniform(0.12, 0.4), rng.uniform(0.22, 0.34)
        return replace(filling, crushed=Spot(x, y, rng.uniform(0.07, 0.13), rng.uniform(0.0, 9.0)))
    return filling


def _plan(good: Meal, defect: str | None, rng: np.random.Generator) -> Meal:
    """Returns the meal broken as the defect says."""
    if defect is None:
        return good
    if defect[0].isdigit():
        return replace(good, fruits=_recount(good.fruits, defect, rng))
    if defect == "compartments_swapped":
        places = zip(good.fruits, SLOTS["right"], strict=False)
        fruits = [replace(fruit, x=x, y=y) for fruit, (x, y) in places]
        return Meal(fruits, replace(good.filling, room="left"))
    return replace(good, filling=_refill(good.filling, defect, rng))


def draw(canvas: Canvas, dice: Dice, defect: str | None) -> None:
    """Draws a breakfast box, with the named defect if one is given."""
    good, rng = _arrange(dice.scene), dice.defect
    meal = _plan(good, defect, rng)
    paint_box(canvas, dice.texture)
    for fruit in meal.fruits:
        paint_fruit(canvas, fruit)
    pour(canvas, meal.filling, dice.texture)
    if defect == "contamination":
        blemishes.contaminate(canvas, rng, rng.uniform(-0.48, 0.48), rng.uniform(-0.38, 0.38))
    elif defect == "fruit_damaged":
        bruise(canvas, meal.fruits[int(rng.integers(len(meal.fruits)))], rng)
    elif defect == "box_damaged":
        crack_box(canvas, rng)
    elif defect:
        canvas.mark(canvas.whole(), _repairable(canvas, good, meal, defect))


def _repairable(canvas: Canvas, good: Meal, meal: Meal, defect: str) -> BoolArray:
    """Returns the pixels (H, W) that could be altered to repair the contents of the rooms."""
    whole = canvas.whole()
    u, v, filling = whole.u, whole.v, meal.filling
    if defect[0].isdigit():
        return _fruit_candidates(canvas, whole, meal.fruits)
    if defect == "compartments_swapped":
        return (room_distance("left", u, v) < 0) | (room_distance("right", u, v) < 0)
    before, after = good.filling.distance(u, v) < 0, filling.distance(u, v) < 0
    spot = filling.mixed or filling.crushed
    if spot:
        return after & spot.holds(u, v)
    if filling.swell:
        return before ^ after
    if defect == "wrong_ratio":
        return before & (good.filling.is_topping(u, v) ^ filling.is_topping(u, v))
    if defect == "missing_cereals_and_toppings":
        return before
    part = filling.is_cereal if defect == "missing_cereals" else filling.is_topping
    return before & part(u, v)


def _fruit_candidates(canvas: Canvas, whole: Patch, fruits: list[Fruit]) -> BoolArray:
    """Returns the places where a fruit may be missing, or all fruits of a kind with too many."""
    if len(fruits) < 3:
        free: BoolArray = room_distance("left", whole.u, whole.v) < 0
        for fruit in fruits:
            free &= ~fruit_mask(canvas, fruit)
        return free
    surplus = sum(fruit.is_nectarine for fruit in fruits) > 1
    masks = [fruit_mask(canvas, fruit) for fruit in fruits if fruit.is_nectarine == surplus]
    union: BoolArray = np.logical_or.reduce(masks)
    return union


CATEGORY = Category("breakfast_box", 1.25, (0.045, 0.045, 0.065), DEFECTS, draw)
