"""Decides from trainings with fresh seeds whether a setting is better than the paper's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats

from dfsc_tune.errors import UserError
from dfsc_tune.metrics import LEVEL, Interval

PAPER = "paper"
CONFIRMED = "confirmed.parquet"
"""In the folder of a run that confirms another: one row for each setting."""
MIN_SEEDS = 2
"""Seeds with which a setting and the paper's must both be trained in full to be compared."""


@dataclass(frozen=True)
class Confirmed:
    """A setting's result with fresh seeds on the selection part."""

    setting: str
    num_seeds: int
    mean: float
    sd: float
    """Sample standard deviation over the seeds."""
    gain: float
    """Mean difference to the paper's setting over the seeds that both completed."""
    gain_interval: Interval
    """Student's t interval of the differences paired by seed."""


@dataclass(frozen=True)
class Decision:
    """The setting to use for a category, and what it rests on."""

    settings: tuple[Confirmed, ...]
    """In the order in which the table first names them."""
    best: str
    """The setting with the largest gain over the paper's."""
    winner: str
    """`best`, or the paper's setting if the gain over it may be noise."""
    left_out: Mapping[str, int]
    """Settings that shared too few completed seeds with the paper's to be judged, with the number
    of their own completed seeds."""

    @property
    def verdict(self) -> str:
        """The decision in a sentence."""
        if self.best == PAPER:
            return "no setting is better than the paper's on average: the paper's is kept"
        if self.winner == PAPER:
            return f"{self.best} is best, but within noise of the paper's setting, which is kept"
        return f"{self.winner} is better than the paper's setting beyond the noise of seeds"


def decide(trainings: pd.DataFrame) -> Decision:
    """Decides for one category which setting to use.

    The setting with the largest gain over the paper's wins if the 95 % interval of that gain lies
    above 0; otherwise the paper's is kept. Gains are compared, not means, because means of
    different seeds cannot be compared where a seed failed. The interval is that of one gain; it is
    not widened for being the largest of several.

    Args:
        trainings: one row for each complete training: `setting` (the paper's is "paper"), `seed`
            (unique within a setting) and `value`, on the selection part.

    Raises:
        UserError: the paper's setting has fewer than two seeds. Other such settings are left out.
    """
    values = {
        str(name): rows.set_index("seed")["value"]
        for name, rows in trainings.groupby("setting", sort=False)
    }
    paper = values.get(PAPER, pd.Series(dtype=float))
    if len(paper) < MIN_SEEDS:
        raise UserError(
            f"the paper's setting was trained in full with {len(paper)} fresh seeds, and at least "
            f"{MIN_SEEDS} are needed to tell a gain from noise; see the failed trials"
        )
    settings = tuple(
        _confirmed(name, found, paper)
        for name, found in values.items()
        if len(found.index.intersection(paper.index)) >= MIN_SEEDS
    )
    judged = {found.setting for found in settings}
    left_out = {name: len(found) for name, found in values.items() if name not in judged}
    # Of equal gains, the paper's setting wins.
    best = max(settings, key=lambda found: (found.gain, found.setting == PAPER))
    kept = best.gain_interval.low <= 0
    return Decision(settings, best.setting, PAPER if kept else best.setting, left_out)


def _confirmed(name: str, values: pd.Series[Any], paper: pd.Series[Any]) -> Confirmed:
    gains = (values - paper).dropna()
    gain = float(gains.mean())
    factor = float(stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1))
    half = factor * float(gains.std()) / math.sqrt(len(gains))
    return Confirmed(
        setting=name,
        num_seeds=len(values),
        mean=float(values.mean()),
        sd=float(values.std()),
        gain=gain,
        gain_interval=Interval(gain - half, gain + half),
    )
