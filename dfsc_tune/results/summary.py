"""What a run found: the best trial of each category and its honest numbers, with their doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dfsc_tune.metrics import (
    Difference,
    Interval,
    image_auroc_difference,
    image_auroc_interval,
    newcombe_interval,
)
from dfsc_tune.metrics.image import AUROCS, can_be_judged, judge
from dfsc_tune.results.files import Run
from dfsc_tune.results.schema import MODELS
from dfsc_tune.training.objectives import objective_named

# A difference of a smaller p-value is called real.
_SIGNIFICANT = 0.05
REFERENCES = {"paper": "the paper's setting", "margin_0": "margin 0"}
"""The roles that the best trial is compared with, and what people call them."""
_CHANCE = 0.5


@dataclass(frozen=True)
class Summary:
    """What a search found for one category."""

    category: str
    trial: str
    role: str
    """Why the best trial was tried: paper, margin_0, starting_point, sampler or config."""
    settings: dict[str, Any]
    """The searched settings of the best trial."""
    selection_value: float
    """What the search maximised; optimistic, for it was selected."""
    selection_interval: Interval
    """Its 95 % interval: trials whose values lie inside cannot be told apart."""
    objective: str
    """What the search was judged by, by its name."""
    optimistic: bool
    """Whether the numbers below come from the images that were selected on."""
    aurocs: dict[str, float | None]
    """Image AUROCs of the report part; None where it lacks good or anomalous images."""
    intervals: dict[str, Interval]
    """95 % intervals of these, by kind (logical, structural, mean), as far as there are any."""
    num_images: dict[str, int]
    """Images of the report part by kind."""
    gains: dict[str, Difference]
    """Mean AUROC above that of each other role in `scores` (paper, margin_0), on the same images.
    The p-value is the sharper judge, for near an AUROC of 1 the interval is cautious."""


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Each category's best trial among those that trained to the full budget, by `value`."""
    complete = trials[(trials["state"] == "complete") & trials["value"].notna()]
    first = complete.sort_values(["value", "trial"], ascending=[False, True], kind="stable")
    return first.drop_duplicates("category").sort_values("category")


def summaries(run: Run) -> list[Summary]:
    """What the run found, a summary for each category that has a best trial with scores."""
    found = (summary_of(run, category) for category in best_trials(run.trials)["category"])
    return [summary for summary in found if summary is not None]


def summary_of(run: Run, category: str) -> Summary | None:
    """What the run found for one category; None while its best trial is not published."""
    best = best_trials(run.trials[run.trials["category"] == category]).to_dict("records")
    if not best or not is_finalized(run, category):
        return None
    scores = run.scores[run.scores["category"] == category]
    return _summary(run, scores, {str(name): value for name, value in best[0].items()})


def is_finalized(run: Run, category: str) -> bool:
    """Whether the best trial's model of a category has been written and scored.

    A search that was given more trials may have a better one than that of the last scores.
    """
    if not any(run.settings.datasets[category].report.values()):
        # Without any test image there is nothing to score.
        return (run.folder / MODELS / category).is_dir()
    best = best_trials(run.trials[run.trials["category"] == category])["trial"]
    scores = run.scores[(run.scores["category"] == category) & (run.scores["role"] == "best")]
    return bool(scores["trial"].isin(best).any())


def describe(summary: Summary) -> list[str]:
    """The summary in a few plain sentences, for the terminal and the head of `best/*.yaml`."""
    objective = objective_named(summary.objective)
    reached = _with_interval(summary.selection_value, summary.selection_interval)
    of = f" {objective.value_of}" if objective.value_of else ""
    saw = f"the search saw {reached}{of}: trials inside this interval cannot be told apart"
    if summary.aurocs["auroc_mean"] is None:
        lines = ["real defects: unknown, for there are no labelled test images of both kinds", saw]
        if summary.selection_interval.low <= _CHANCE:
            lines.append(
                "what the search saw is not told apart from chance: use more good images, train "
                "longer, at a larger image size, or use another teacher"
            )
        return lines
    images = ", ".join(f"{count} {kind}" for kind, count in summary.num_images.items() if count)
    lines = [
        f"image AUROC on {images} images, {objective.report_images}:",
        *(
            f"  {name:<10} {_with_interval(value, summary.intervals[name])}"
            for name in ("logical", "structural", "mean")
            if (value := summary.aurocs[f"auroc_{name}"]) is not None
        ),
    ]
    if summary.intervals["mean"].low <= _CHANCE:
        lines.append(
            "not told apart from chance: label more defects, train longer, at a larger image size, "
            "or use another teacher"
        )
    lines += filter(None, (gain_in_words(summary, role) for role in REFERENCES))
    return [*lines, saw]


def shown_duration(seconds: float) -> str:
    """A time for people, such as 1 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def shown_value(value: object) -> str:
    """A setting's value for people: four digits, six near 1, where quantiles and momenta live."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.6g}" if 0.99 < value < 1 else f"{value:.4g}"


def gain_in_words(summary: Summary, role: str) -> str | None:
    """What the best trial gained over that of a reference, and whether it is beyond noise.

    None where there is nothing to compare: a single config, or a search that does not vary margin.
    """
    name = REFERENCES[role]
    if summary.role == "config" or (role == "margin_0" and "margin" not in summary.settings):
        return None
    if summary.role == role:
        return f"{name} itself is the best of those tried: tuning gained nothing over it"
    if role not in summary.gains:
        return f"{name} was not trained to the full budget: the gain over it is not known"
    gain = summary.gains[role]
    verdict = "a real difference" if is_real(gain) else "no difference beyond noise"
    return (
        f"gain in mean AUROC over {name}: {_with_interval(gain.value, gain.interval, sign='+')}: "
        f"{verdict} (permutation test: p = {gain.p_value:.2g})"
    )


def is_real(difference: Difference) -> bool:
    """Whether a difference is more than noise: p-value below 0.05, and 0 outside its interval.

    Of a few images, one of the two may say so alone; then it is not sure enough to be told.
    """
    interval = difference.interval
    return difference.p_value < _SIGNIFICANT and not interval.low <= 0 <= interval.high


def _with_interval(value: float, interval: Interval, sign: str = "") -> str:
    return (
        f"{value:{sign}.3f}  ({interval.level:.0%} interval "
        f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f})"
    )


def selection_interval(
    trial: Mapping[str, Any], num_images: Mapping[str, int], metric: str
) -> Interval:
    """The 95 % interval of what a trial reached on the selection part, known by its AUROCs alone.

    Newcombe's for each kind; for the mean, their half-widths combined as of independent kinds.
    """
    kinds = ("logical", "structural") if metric == "mean" else (metric,)
    parts = [
        (auroc, newcombe_interval(auroc, num_images["good"], num_images[kind]))
        for kind in kinds
        if num_images[kind] and (auroc := trial[f"auroc_{kind}"]) is not None
    ]
    below = math.hypot(*(auroc - interval.low for auroc, interval in parts)) / len(parts)
    above = math.hypot(*(interval.high - auroc for auroc, interval in parts)) / len(parts)
    return Interval(trial["value"] - below, trial["value"] + above)


def _summary(run: Run, scores: pd.DataFrame, best: Mapping[str, Any]) -> Summary:
    category = best["category"]
    ours = scores[scores["role"] == "best"].sort_values("image")
    kinds = ours["kind"].tolist()
    values = ours["score"].to_numpy()
    labelled = can_be_judged(kinds)
    gains = {}
    for role in REFERENCES:
        theirs = scores[scores["role"] == role].sort_values("image")
        if labelled and len(theirs):
            gains[role] = image_auroc_difference(values, theirs["score"].to_numpy(), kinds)
    dataset, metric = run.settings.datasets[category], run.settings.objective.metric
    objective = run.objective_of(category)
    return Summary(
        category=category,
        trial=best["trial"],
        role=best["role"],
        settings={name: best[name] for name in run.settings.searched[category]},
        selection_value=best["value"],
        selection_interval=selection_interval(best, dataset.selection, metric),
        objective=objective.name,
        optimistic=objective.optimistic,
        aurocs=judge(values, kinds) if labelled else dict.fromkeys(AUROCS),
        intervals=image_auroc_interval(values, kinds) if labelled else {},
        num_images={kind: kinds.count(kind) for kind in ("good", "logical", "structural")},
        gains=gains,
    )
