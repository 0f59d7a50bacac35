"""The paper's tables and figure: the trainings that each needs, and the lines made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dfsc_tune.errors import UserError
from dfsc_tune.reference import published_margins
from dfsc_tune.spaces.parameters import Value

BY_ANOMALIB = " (anomalib)"
"""Ends the label of a method that anomalib trains."""

Measure = Literal["logical", "structural", "mean", "au_spro"]
"""Image AUROC of a kind, or the mean of the two; or AU-sPRO up to an FPR of 0.05, their mean."""

Protocol = Literal["oracle", "holdout", "synthetic"]
"""On which images something is chosen and on which it is reported: an objective by its name."""
PROTOCOLS: tuple[Protocol, ...] = ("oracle", "holdout")
"""The paper's first."""

MOST_SEEDS = 10
"""A batch lists its trainings for so many seeds, so that one that ran can be given more."""
MARGINS = (0.0, 0.2, 0.4, 1.0, 2.0)
"""Of Table 3."""
# The paper's text states none but 0.999; these are ours.
QUANTILES = (0.9, 0.95, 0.99, 0.995, 0.999)
_MOMENTUM = 0.99
_DEFAULT_MARGIN = 1.0

PAPERS_MARGIN: None = None
"""As a margin: the one that Table 3 found best for the category."""

Setting = Mapping[str, Value | None]
"""Searchable settings by name; see `PAPERS_MARGIN`."""


@dataclass(frozen=True)
class Batch:
    """Trainings that are one search, all of the same network and data: each with every seed."""

    name: str
    settings: tuple[Setting, ...]
    """What differs between the trainings, the same names in each."""
    fixed: Mapping[str, Any]
    """What they share, above the scale's own: what a `Scoring` decides is as the paper has it."""
    penalty: bool = False
    """Whether EfficientAD's penalty belongs to it, where there are photographs."""
    larger_network: bool = False
    """Whether it takes the network above the scale's: EfficientAD-M."""


@dataclass(frozen=True)
class Scoring:
    """What of a training's scores is decided after it: no training is done for it."""

    sigmoid: bool = True
    ema_momentum: float = _MOMENTUM


@dataclass(frozen=True)
class Line:
    """One line of a table: trainings, and how they are scored."""

    label: str
    batch: Batch
    setting: Setting
    scoring: Scoring = Scoring()
    over: str | None = None
    """The line that its gain is told over."""


@dataclass(frozen=True)
class PaperTable:
    """A table or figure of the paper."""

    name: str
    title: str
    lines: tuple[Line, ...]
    measures: tuple[Measure, ...]
    compares_methods: bool = False
    """Whether other methods' lines belong to it."""
    chooses_margin: bool = False
    """Whether its lines are margins, of which one is to be chosen for each category."""
    notes: tuple[str, ...] = ()

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """Where nothing is chosen, `synthetic` reports on what `oracle` does: all test images."""
        return (*PROTOCOLS, "synthetic") if self.chooses_margin else PROTOCOLS

    @property
    def batches(self) -> tuple[Batch, ...]:
        """The searches it needs, none twice."""
        return tuple({line.batch.name: line.batch for line in self.lines}.values())


_PAPERS: dict[str, Any] = {"train": {"ema_momentum": _MOMENTUM}, "score": {"sigmoid": True}}
_PLAIN: dict[str, Any] = {
    "train": {
        "optimizer": "adam",
        "beta2": 0.999,
        "warmup": False,
        "decay_share": 0.05,
        "ema_momentum": 0.0,
        "autoencoder_augmentation": True,
    },
    "model": {"instance_norm_relu": False},
    "score": {"sigmoid": False},
}
DFSC = Batch("dfsc", ({"margin": PAPERS_MARGIN},), _PAPERS)
EFFICIENTAD_S = Batch("efficientad_s", ({"margin": 0.0},), _PLAIN, penalty=True)
EFFICIENTAD_M = Batch(
    "efficientad_m", ({"margin": 0.0},), _PLAIN, penalty=True, larger_network=True
)
_MARGINS = Batch("margins", tuple({"margin": margin} for margin in MARGINS), _PAPERS)
_QUANTILES = Batch(
    "quantiles",
    tuple({"margin": PAPERS_MARGIN, "quantile": quantile} for quantile in QUANTILES),
    _PAPERS,
)
_VANILLA: Setting = {"margin": 0.0, "instance_norm_relu": False}
_NORMS: Setting = {"margin": 0.0, "instance_norm_relu": True}
_CONSTRAINED: Setting = {"margin": PAPERS_MARGIN, "instance_norm_relu": True}
_ABLATION = Batch(
    "ablation",
    (_VANILLA, _NORMS, _CONSTRAINED),
    # Gradients never see an average: one training is scored with and without.
    {**_PAPERS, "train": {"ema_momentum": _MOMENTUM, "extra_ema_momenta": [0.0]}},
)

_METHODS = (
    Line("DFSC", DFSC, {"margin": PAPERS_MARGIN}, over="EfficientAD-S"),
    Line("EfficientAD-S", EFFICIENTAD_S, {"margin": 0.0}, Scoring(False, 0.0)),
    Line("EfficientAD-M", EFFICIENTAD_M, {"margin": 0.0}, Scoring(False, 0.0)),
)
_MARGINS_NOTE = (
    "DFSC's margins are those that the paper found best on the whole test set: on MVTec LOCO AD "
    "the holdout numbers of DFSC are optimistic too; those of Table 3's chosen margin are not"
)

PAPER_TABLES: dict[str, PaperTable] = {
    table.name: table
    for table in (
        PaperTable(
            "table1",
            "Table 1: image AUROC",
            _METHODS,
            ("logical", "structural", "mean"),
            compares_methods=True,
            notes=(_MARGINS_NOTE,),
        ),
        PaperTable(
            "table2",
            "Table 2: AU-sPRO up to an FPR of 0.05",
            _METHODS,
            ("au_spro",),
            compares_methods=True,
            notes=(_MARGINS_NOTE,),
        ),
        PaperTable(
            "table3",
            "Table 3: image AUROC by margin",
            tuple(
                Line(f"margin {x:g}", _MARGINS, {"margin": x}, over="margin 0" if x else None)
                for x in MARGINS
            ),
            ("mean",),
            chooses_margin=True,
        ),
        PaperTable(
            "table4",
            "Table 4: ablation, image AUROC",
            (
                Line("vanilla", _ABLATION, _VANILLA, Scoring(False, 0.0)),
                Line("+ IN+ReLU", _ABLATION, _NORMS, Scoring(False, 0.0), "vanilla"),
                Line("+ Sigmoid", _ABLATION, _NORMS, Scoring(True, 0.0), "+ IN+ReLU"),
                Line("+ DFSC", _ABLATION, _CONSTRAINED, Scoring(True, 0.0), "+ Sigmoid"),
                Line("+ Momentum", _ABLATION, _CONSTRAINED, Scoring(True, _MOMENTUM), "+ DFSC"),
            ),
            ("mean",),
            notes=(
                "sigmoid and momentum are decided after training: lines that differ in them alone "
                "score the same trainings",
                _MARGINS_NOTE,
            ),
        ),
        PaperTable(
            "figure4",
            "Figure 4: image AUROC by quantile",
            tuple(
                Line(
                    f"quantile {x:g}",
                    _QUANTILES,
                    {"margin": PAPERS_MARGIN, "quantile": x},
                    over=None if x == QUANTILES[-1] else f"quantile {QUANTILES[-1]:g}",
                )
                for x in QUANTILES
            ),
            ("mean",),
            notes=(
                "the paper prints no numbers, and its text no quantile but 0.999: the others are "
                "ours",
                _MARGINS_NOTE,
            ),
        ),
    )
}


def find_table(name: str) -> PaperTable:
    """The table or figure of that name; UserError names those there are."""
    if name not in PAPER_TABLES:
        raise UserError(f"no table or figure '{name}'; choose from {', '.join(PAPER_TABLES)}")
    return PAPER_TABLES[name]


def papers_margin(category: str) -> float:
    """The margin that the paper's Table 3 found best for a category; 1 for one it lacks."""
    published = published_margins(category)
    return max(published, key=lambda margin: published[margin]) if published else _DEFAULT_MARGIN


def setting_for(setting: Setting, category: str) -> dict[str, Value]:
    """A setting's values for a category."""
    margin = papers_margin(category)
    return {name: margin if value is PAPERS_MARGIN else value for name, value in setting.items()}
