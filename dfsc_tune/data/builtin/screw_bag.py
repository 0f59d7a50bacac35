"""Screw bag: a zip bag holding one long and one short screw, two nuts and two washers."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from dfsc_tune.data.builtin import blemishes
from dfsc_tune.data.builtin.bag_parts import (
    GILT,
    REACH,
    STEEL,
    Part,
    PartKind,
    lay_film,
    paint_back,
    paint_front,
    paint_part,
    tear,
)
from dfsc_tune.data.builtin.category import Category, DefectType, Dice
from dfsc_tune.data.builtin.drawing import Canvas, Colour, box, mix

ROOM = (-0.53, 0.33, 0.30)
"""Left and right end and half-height of the area where parts may lie."""
LONG, SHORT, VERY_SHORT = 0.37, 0.255, 0.155
"""Screw lengths over all."""
LONG_AREA, SHORT_AREA, NUT_AREA, WASHER_AREA = 0.0231, 0.0167, 0.0055, 0.0051
"""Footprints of the parts: the area that one part too many or too few covers."""
ODD_COLOURS: tuple[Colour, ...] = (
    (1.0, 0.72, 0.28),
    (0.95, 0.52, 0.36),
    (0.35, 0.36, 0.40),
    (0.55, 0.65, 1.0),
)
"""Brass, copper, burnished and blue-zinc parts."""

DEFECTS = (
    DefectType("screw_too_long", "logical", area=LONG_AREA - SHORT_AREA),
    DefectType("screw_too_short", "logical", area=LONG_AREA - SHORT_AREA),
    DefectType("1_very_short_screw", "logical"),
    DefectType("2_very_short_screws", "logical"),
    DefectType("1_additional_long_screw", "logical", area=LONG_AREA),
    DefectType("1_additional_short_screw", "logical", area=SHORT_AREA),
    DefectType("1_additional_nut", "logical", area=NUT_AREA),
    DefectType("2_additional_nuts", "logical", area=2 * NUT_AREA),
    DefectType("1_additional_washer", "logical", area=WASHER_AREA),
    DefectType("2_additional_washers", "logical", area=2 * WASHER_AREA),
    DefectType("1_missing_long_screw", "logical", area=LONG_AREA),
    DefectType("1_missing_short_screw", "logical", area=SHORT_AREA),
    DefectType("1_missing_nut", "logical", area=NUT_AREA),
    DefectType("2_missing_nuts", "logical", area=2 * NUT_AREA),
    DefectType("1_missing_washer", "logical", area=WASHER_AREA),
    DefectType("2_missing_washers", "logical", area=2 * WASHER_AREA),
    DefectType("bag_broken", "structural"),
    DefectType("color", "structural"),
    DefectType("contamination", "structural"),
    DefectType("part_broken", "structural"),
)


RULE = (
    Part("screw", LONG),
    Part("screw", SHORT),
    Part("nut"),
    Part("nut"),
    Part("washer"),
    Part("washer"),
)
"""The parts that every bag must hold."""
BY_NAME = {"long_screw": RULE[0], "short_screw": RULE[1], "nut": RULE[2], "washer": RULE[4]}
"""The parts by the words that defect names use."""


@dataclass
class Bag:
    """The parts of a bag at their places, and what is wrong with it."""

    parts: list[Part] = field(default_factory=list)
    lacks: bool = False
    """True if a part is missing, so that it might lie anywhere in the bag."""


def _is_screw(part: Part, length: float) -> bool:
    return part.kind == "screw" and part.length == length


def _place(part: Part, others: list[Part], rng: np.random.Generator) -> Part:
    """Returns the part at a random place in the bag where it overlaps the others least."""
    taken = [other.spine() for other in others]
    points = np.concatenate(taken) if taken else np.empty((0, 2))
    best, best_gap = part, -np.inf
    for _ in range(60):
        angle = rng.uniform(0.0, 2 * math.pi)
        half = part.length / 2
        margin_x, margin_y = half * abs(math.cos(angle)), half * abs(math.sin(angle))
        x = rng.uniform(ROOM[0] + margin_x, ROOM[1] - margin_x)
        y = rng.uniform(-ROOM[2] + margin_y, ROOM[2] - margin_y)
        thrown = replace(part, x=x, y=y, angle=angle)
        gap = np.inf
        if len(points):
            gap = float(np.linalg.norm(thrown.spine()[:, None] - points, axis=-1).min())
        if gap > best_gap:
            best, best_gap = thrown, gap
        if best_gap > 2.05 * REACH:
            break
    return best


def _throw(part: Part, others: list[Part], rng: np.random.Generator) -> Part:
    """Returns a new part of that kind, more or less yellowish, at a free place."""
    return _place(replace(part, tint=mix(STEEL, GILT, rng.uniform(0.0, 1.0))), others, rng)


def _fill(rng: np.random.Generator) -> Bag:
    """Returns a bag that obeys the rule, its parts at random places."""
    bag = Bag()
    for part in RULE:
        bag.parts.append(_throw(part, bag.parts, rng))
    return bag


def _swap_screw(bag: Bag, old: float, new: float, rng: np.random.Generator) -> None:
    """Exchanges a screw for one of another length, turning about its middle."""
    for index, part in enumerate(bag.parts):
        if _is_screw(part, old):
            others = bag.parts[:index] + bag.parts[index + 1 :]
            longer = replace(part, length=new)
            bag.parts[index] = longer if new < old else _place(longer, others, rng)
            return


def _mark(bag: Bag, kind: PartKind, length: float | None = None) -> None:
    """Marks all parts of a kind (and length): each could be the one too many."""
    bag.parts = [
        replace(part, marked=True) if part.kind == kind and length in (None, part.length) else part
        for part in bag.parts
    ]


def _change_screws(bag: Bag, defect: str, rng: np.random.Generator) -> None:
    if defect == "screw_too_long":
        _swap_screw(bag, SHORT, LONG, rng)
        _mark(bag, "screw", LONG)
    elif defect == "screw_too_short":
        _swap_screw(bag, LONG, SHORT, rng)
        _mark(bag, "screw", SHORT)
    else:
        _swap_screw(bag, SHORT, VERY_SHORT, rng)
        if defect == "2_very_short_screws":
            _swap_screw(bag, LONG, VERY_SHORT, rng)
        _mark(bag, "screw", VERY_SHORT)


def _change_count(bag: Bag, defect: str, rng: np.random.Generator) -> None:
    """Adds or removes parts as the defect's name says: `<count>_<additional|missing>_<part>`."""
    count, change, what = defect.split("_", 2)
    sample = BY_NAME[what.removesuffix("s")]
    if change == "missing":
        for _ in range(int(count)):
            gone = next(p for p in bag.parts if p.kind == sample.kind and p.length == sample.length)
            bag.parts.remove(gone)
        bag.lacks = True
        return
    for _ in range(int(count)):
        bag.parts.append(_throw(sample, bag.parts, rng))
    _mark(bag, sample.kind, sample.length)


def _damage_part(bag: Bag, defect: str, rng: np.random.Generator) -> None:
    index = int(rng.integers(len(bag.parts)))
    part = replace(bag.parts[index], marked=True)
    if defect == "color":
        odd = ODD_COLOURS[rng.integers(len(ODD_COLOURS))]
        part = replace(part, tint=mix(part.tint, odd, rng.uniform(0.5, 1.0)))
    else:
        part = replace(part, broken=rng.uniform(0.35, 1.0))
    bag.parts[index] = part


def _plan(dice: Dice, defect: str | None) -> Bag:
    """Returns a bag that obeys the rule, then breaks it as the defect says."""
    bag = _fill(dice.scene)
    if defect in ("color", "part_broken"):
        _damage_part(bag, defect, dice.defect)
    elif defect and ("additional" in defect or "missing" in defect):
        _change_count(bag, defect, dice.defect)
    elif defect and "screw" in defect:
        _change_screws(bag, defect, dice.defect)
    return bag


def draw(canvas: Canvas, dice: Dice, defect: str | None) -> None:
    """Draws a bag of screws, with the named defect if one is given."""
    bag, rng = _plan(dice, defect), dice.defect
    film = lay_film(canvas, dice.scene.normal(0.0, 0.015), dice.texture)
    paint_back(canvas, film, dice.texture)
    for part in bag.parts:
        paint_part(canvas, part)
    paint_front(canvas, film, dice.texture)
    left, right, half = ROOM
    if bag.lacks:
        patch = film.patch
        middle = patch.u - (left + right) / 2
        canvas.mark(patch, box(middle, patch.v, (right - left) / 2 + 0.03, half + 0.03) < 0)
    if defect == "bag_broken":
        tear(canvas, rng, rng.uniform(left, right), rng.uniform(-half, half))
    elif defect == "contamination":
        blemishes.contaminate(canvas, rng, rng.uniform(left, right), rng.uniform(-half, half))


CATEGORY = Category("screw_bag", 1600 / 1100, (0.022, 0.022, 0.026), DEFECTS, draw)
