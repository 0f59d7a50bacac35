"""The paper's tables and figure: their lines, and the trainings that these need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dfsc_tune.errors import UserError
from dfsc_tune.reference import published_margins
from dfsc_tune.spaces.parameters import Value

BY_ANOMALIB = " (anomalib)"
"""The end of the label of a method that anomalib trains."""

Measure = Literal["logical", "structural", "mean", "au_spro"]
"""Image AUROC of a kind, their mean, or the mean AU-sPRO of both kinds up to an FPR of 0.05."""

Protocol = Literal["oracle", "holdout", "synthetic"]
"""The name of an objective: the images that choose, and those that give the numbers."""
PROTOCOLS: tuple[Protocol, ...] = ("oracle", "holdout")
"""The paper's first."""

MOST_SEEDS = 10
"""Number of seeds for which a batch fixes its trainings, so that seeds can be added later."""
MARGINS = (0.0, 0.2, 0.4, 1.0, 2.0)
"""The margins of Table 3."""
# The paper's text states only 0.999; the others are ours.
QUANTILES = (0.9, 0.95, 0.99, 0.995, 0.999)
_MOMENTUM = 0.99
_DEFAULT_MARGIN = 1.0

PAPERS_MARGIN: None = None
"""A margin's placeholder: the one that Table 3 found best for the category."""

Setting = Mapping[str, Value | None]
"""Searchable settings by name; see `PAPERS_MARGIN`."""


@dataclass(frozen=True)
class Batch:
    """Trainings with one network that are run as one search, each with every seed."""

    name: str
    settings: tuple[Setting, ...]
    """The settings of each training; all have the same names."""
    fixed: Mapping[str, Any]
    """Settings that all share; those that a `Scoring` decides are the paper's."""
    penalty: bool = False
    """True if EfficientAD's penalty belongs to it, given photographs."""
    larger_network: bool = False
    """True if it takes the next larger network than the scale's: EfficientAD-M."""


@dataclass(frozen=True)
class Scoring:
    """Choices of how to score that are made after training and need no training of their own."""

    sigmoid: bool = True
    ema_momentum: float = _MOMENTUM


@dataclass(frozen=True)
class Line:
    """One line of a table: its trainings, and how they are scored."""

    label: str
    batch: Batch
    setting: Setting
    scoring: Scoring = Scoring()
    over: str | None = None
    """The line that its gain compares with."""


@dataclass(frozen=True)
class PaperTable:
    """A table or figure of the paper."""

    name: str
    title: str
    lines: tuple[Line, ...]
    measures: tuple[Measure, ...]
    compares_methods: bool = False
    """True if it has lines of other methods."""
    chooses_margin: bool = False
    """True if its lines are margins, of which one is chosen for each category."""
    notes: tuple[str, ...] = ()

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """Its protocols; without a choice, `synthetic` would be the same as `oracle`."""
        return (*PROTOCOLS, "synthetic") if self.chooses_margin else PROTOCOLS

    @property
    def batches(self) -> tuple[Batch, ...]:
        """The batches that it needs, each once."""
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
    # Gradients never see the average, so one training is scored with and without it.
    {**_PAPERS, "train": {"ema_momentum": _MOMENTUM, "extra_ema_momenta": [0.0]}},
)

_METHODS = (
    Line("DFSC", DFSC, {"margin": PAPERS_MARGIN}, over="EfficientAD-S"),
    Line("EfficientAD-S", EFFICIENTAD_S, {"margin": 0.0}, Scoring(False, 0.0)),
    Line("EfficientAD-M", EFFICIENTAD_M, {"margin": 0.0}, Scoring(False, 0.0)),
)
_MARGINS_NOTE = (
    "DFSC's margins are those that the paper found best on the whole test set, so on MVTec LOCO AD "
    "its holdout numbers are optimistic, too; those of Table 3's chosen margin are not"
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
                "sigmoid and momentum are applied after training: lines that differ only in these "
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
    """Returns the table or figure of a name; a UserError names those that exist."""
    if name not in PAPER_TABLES:
        raise UserError(f"no table or figure '{name}'; choose from {', '.join(PAPER_TABLES)}")
    return PAPER_TABLES[name]


def papers_margin(category: str) -> float:
    """Returns the margin that Table 3 found best for a category; 1 for other categories."""
    published = published_margins(category)
    return max(published, key=lambda margin: published[margin]) if published else _DEFAULT_MARGIN


def setting_for(setting: Setting, category: str) -> dict[str, Value]:
    """Returns the values of a setting for a category."""
    margin = papers_margin(category)
    return {name: margin if value is PAPERS_MARGIN else value for name, value in setting.items()}
