"""Splicing connectors: two blocks with equally many clamps, linked by one wire of their colour."""

from dataclasses import dataclass, field, replace

import numpy as np

from dfsc_tune.data.builtin import blemishes
from dfsc_tune.data.builtin.category import Category, DefectType, Dice
from dfsc_tune.data.builtin.connector_parts import (
    CLAMP,
    HALF,
    ORANGE,
    WIRE,
    Block,
    Wire,
    break_block,
    mark_block,
    mark_wire,
    paint_block,
    paint_mesh,
    paint_wire,
    strip_wire,
)
from dfsc_tune.data.builtin.drawing import Canvas, Colour, mix

WIRE_COLOURS: dict[int, Colour] = {
    2: (0.93, 0.76, 0.20),
    3: (0.12, 0.26, 0.62),
    5: (0.80, 0.16, 0.09),
}
"""Wire colour by the number of clamps of the blocks it links."""
UNKNOWN_COLOURS: tuple[Colour, ...] = (
    (0.12, 0.45, 0.20),
    (0.80, 0.80, 0.78),
    (0.14, 0.13, 0.13),
    (0.50, 0.20, 0.55),
)
ODD_LEVERS: tuple[Colour, ...] = (
    (0.85, 0.72, 0.15),
    (0.75, 0.18, 0.12),
    (0.25, 0.45, 0.70),
    (0.50, 0.48, 0.45),
)
CLAMP_AREA = 2 * HALF * CLAMP
WIRE_AREA = 2 * WIRE * 0.92
"""Footprints of one clamp of a block, and of a wire of common length."""

DEFECTS = (
    DefectType("wrong_connector_type_5_2", "logical", area=3 * CLAMP_AREA),
    DefectType("wrong_connector_type_5_3", "logical", area=2 * CLAMP_AREA),
    DefectType("wrong_connector_type_3_2", "logical", area=CLAMP_AREA),
    DefectType("cable_too_short_T2", "logical", area=2 * CLAMP_AREA),
    DefectType("cable_too_short_T3", "logical", area=3 * CLAMP_AREA),
    DefectType("cable_too_short_T5", "logical", area=5 * CLAMP_AREA),
    DefectType("missing_connector", "logical"),
    DefectType("missing_connector_and_cable", "logical"),
    DefectType("missing_cable", "logical", area=WIRE_AREA),
    DefectType("extra_cable", "logical", share=0.5),
    DefectType("cable_color", "logical", area=WIRE_AREA),
    DefectType("broken_cable", "structural"),
    DefectType("cable_cut", "logical"),
    DefectType("cable_not_plugged", "structural"),
    DefectType("unknown_cable_color", "structural"),
    DefectType("wrong_cable_location", "logical", area=WIRE_AREA),
    DefectType("flipped_connector", "structural"),
    DefectType("broken_connector", "structural"),
    DefectType("open_lever", "structural"),
    DefectType("color", "structural"),
    DefectType("contamination", "structural"),
)


@dataclass
class Link:
    """Two blocks and their wire or wires; a ghost is a part that should be there but is missing."""

    blocks: list[Block]
    wires: list[Wire]
    clamp: int
    """The clamp that the wire should link in either block, counted from the top."""
    ghost_block: Block | None = None
    ghost_wires: list[Wire] = field(default_factory=list)


def _assemble(rng: np.random.Generator, clamps: int) -> Link:
    """Returns a link that obeys the rule."""
    span = rng.uniform(1.16, 1.30)
    middle, height = rng.normal(0.0, 0.03), rng.normal(0.0, 0.025)
    blocks = [
        Block(
            middle + side * span / 2,
            height + rng.normal(0.0, 0.022),
            rng.normal(0.0, 0.075),
            clamps,
            side,
        )
        for side in (-1, 1)
    ]
    clamp = int(rng.integers(clamps))
    sway = (rng.normal(0.0, 0.025), rng.normal(0.0, 0.02))
    colour = mix(WIRE_COLOURS[clamps], (0.5, 0.5, 0.5), rng.uniform(-0.06, 0.06))
    wire = Wire(blocks[0].mouth(clamp), blocks[1].mouth(clamp), sway, colour)
    return Link(blocks, [wire], clamp)


def _wrong_type(link: Link, rng: np.random.Generator, name: str) -> None:
    """Exchanges one block for one with fewer clamps, and plugs the wire in again."""
    index, fewer = int(rng.integers(2)), int(name[-1])
    old = link.blocks[index]
    link.blocks[index] = replace(old, clamps=fewer, marked=True)
    link.blocks[1 - index] = replace(link.blocks[1 - index], marked=True)
    clamp = int(rng.integers(fewer))
    ends = [block.mouth(clamp) for block in link.blocks]
    link.wires = [replace(link.wires[0], start=ends[0], end=ends[1])]


def _shorten(link: Link, rng: np.random.Generator) -> None:
    """Pulls the blocks together on a wire that is too short."""
    pull = rng.uniform(0.10, 0.24)
    link.blocks = [
        replace(block, x=block.x - block.side * pull, marked=True) for block in link.blocks
    ]
    wire = link.wires[0]
    start, end = wire.start, wire.end
    link.wires = [
        replace(wire, start=(start[0] + pull, start[1]), end=(end[0] - pull, end[1]), marked=True)
    ]


def _between(link: Link, start: int, end: int) -> Wire:
    """Returns the wire, moved to other clamps and marked."""
    left, right = link.blocks
    return replace(link.wires[0], start=left.mouth(start), end=right.mouth(end), marked=True)


def _rewire(link: Link, rng: np.random.Generator, defect: str) -> None:
    """Applies the defects of the wires' number and of the clamps that they link."""
    clamp, clamps = link.clamp, link.blocks[0].clamps
    other = int((clamp + rng.integers(1, clamps)) % clamps)
    if defect == "missing_cable":
        link.ghost_wires = [_between(link, k, k) for k in range(clamps)]
        link.wires = []
    elif defect == "extra_cable":
        sway = (rng.normal(0.0, 0.025), rng.normal(0.0, 0.02))
        extra = replace(_between(link, other, other), sway=sway)
        link.wires = [replace(link.wires[0], marked=True), extra]
    else:
        ends = (clamp, other) if rng.random() < 0.5 else (other, clamp)
        link.ghost_wires = [link.wires[0]]
        link.wires = [_between(link, *ends)]


def _damage_wire(link: Link, rng: np.random.Generator, defect: str) -> None:
    """Applies the defects of a wire's colour and of missing pieces."""
    wire = link.wires[0]
    if defect == "cable_color":
        others = [c for n, c in WIRE_COLOURS.items() if n != link.blocks[0].clamps]
        wire = replace(wire, colour=others[rng.integers(len(others))], marked=True)
    elif defect == "unknown_cable_color":
        odd = UNKNOWN_COLOURS[rng.integers(len(UNKNOWN_COLOURS))]
        wire = replace(wire, colour=odd, marked=True)
    elif defect == "cable_cut":
        middle = rng.uniform(0.25, 0.75)
        wire = replace(wire, gap=(middle, middle + rng.uniform(0.02, 0.2)))
    elif defect == "cable_not_plugged":
        short = rng.uniform(0.03, 0.12)
        wire = replace(wire, gap=(0.0, short) if rng.random() < 0.5 else (1.0 - short, 1.0))
    link.wires = [wire]


def _damage_block(link: Link, rng: np.random.Generator, defect: str) -> None:
    """Applies the defects of one block."""
    index = int(rng.integers(2))
    block = link.blocks[index]
    if defect.startswith("missing_connector"):
        link.ghost_block = block
        del link.blocks[index]
        if defect.endswith("cable"):
            link.ghost_wires, link.wires = link.wires, []
        return
    if defect == "flipped_connector":
        block = replace(block, flipped=True, marked=True)
    elif defect == "open_lever":
        block = replace(block, odd_clamp=int(rng.integers(block.clamps)))
    elif defect == "color":
        odd = ODD_LEVERS[rng.integers(len(ODD_LEVERS))]
        block = replace(block, lever=mix(ORANGE, odd, rng.uniform(0.4, 1.0)), marked=True)
    link.blocks[index] = block


def _clamps_for(defect: str | None, rng: np.random.Generator) -> int:
    """Returns the number of clamps of the blocks: random, unless the defect's name demands one."""
    drawn = int(rng.choice(list(WIRE_COLOURS)))
    if defect and defect.startswith("wrong_connector_type"):
        return int(defect[-3])
    if defect and defect.startswith("cable_too_short"):
        return int(defect[-1])
    return drawn


def _plan(dice: Dice, defect: str | None) -> Link:
    """Returns a link that obeys the rule, then breaks it as the defect says."""
    link = _assemble(dice.scene, _clamps_for(defect, dice.scene))
    rng = dice.defect
    if defect is None:
        return link
    if defect.startswith("wrong_connector_type"):
        _wrong_type(link, rng, defect)
    elif defect.startswith("cable_too_short"):
        _shorten(link, rng)
    elif defect in ("missing_cable", "extra_cable", "wrong_cable_location"):
        _rewire(link, rng, defect)
    elif "connector" not in defect and "cable" in defect:
        _damage_wire(link, rng, defect)
    else:
        _damage_block(link, rng, defect)
    return link


def draw(canvas: Canvas, dice: Dice, defect: str | None) -> None:
    """Draws two linked blocks on expanded metal, with the named defect if one is given."""
    link = _plan(dice, defect)
    paint_mesh(canvas, dice.scene, dice.texture)
    for wire in link.wires:
        paint_wire(canvas, wire)
    for block in link.blocks:
        paint_block(canvas, block, dice.texture)
    for wire in link.ghost_wires:
        mark_wire(canvas, wire)
    if link.ghost_block:
        mark_block(canvas, link.ghost_block)
    _finish(canvas, link, dice.defect, defect)


def _finish(canvas: Canvas, link: Link, rng: np.random.Generator, defect: str | None) -> None:
    """Applies the defects that lie over the finished link."""
    if defect == "contamination":
        near = link.blocks[int(rng.integers(2))]
        x, y = near.x + rng.normal(0.0, 0.1), near.y + rng.normal(0.0, 0.1)
        blemishes.contaminate(canvas, rng, x, y)
    elif defect == "broken_cable":
        strip_wire(canvas, link.wires[0], rng)
    elif defect == "broken_connector":
        break_block(canvas, link.blocks[int(rng.integers(2))], rng)


CATEGORY = Category("splicing_connectors", 2.0, (0.03, 0.028, 0.027), DEFECTS, draw)
