"""The summary of a run: each category's best trial, its unseen numbers and their intervals."""

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
from dfsc_tune.metrics.image import AUROCS, GOOD, KINDS, can_be_judged, judge
from dfsc_tune.results.files import Run
from dfsc_tune.results.schema import MODELS
from dfsc_tune.spaces.space import REFERENCES
from dfsc_tune.training.objectives import objective_named

# A difference with a smaller p-value is called real.
_SIGNIFICANT = 0.05
_CHANCE = 0.5


@dataclass(frozen=True)
class Summary:
    """The results of a search for one category."""

    category: str
    trial: str
    role: str
    """The best trial's role: paper, margin_0, starting_point, sampler or config."""
    settings: dict[str, Any]
    """The searched settings of the best trial."""
    selection_value: float
    """The value that the search maximised; optimistic, because it was selected."""
    selection_interval: Interval
    """Its 95 % interval: trials whose values lie inside cannot be told apart."""
    objective: str
    """The name of the objective that judged the trials."""
    optimistic: bool
    """True if the numbers below come from the images that were selected on."""
    aurocs: dict[str, float | None]
    """Image AUROCs on the report part; None without good or anomalous images there."""
    intervals: dict[str, Interval]
    """Their 95 % intervals, by kind (logical, structural, mean)."""
    num_images: dict[str, int]
    """Number of images of the report part by kind."""
    gains: dict[str, Difference]
    """Mean AUROC minus that of each other role in `scores` (paper, margin_0), on the same images.
    Near an AUROC of 1 the interval is too wide, so the p-value is the sharper test."""


def complete_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns the trials that reached the full budget; without images to select on, they have no
    value."""
    return trials[trials["state"] == "complete"]


def ended_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns the trials that will not go on: complete, pruned or failed."""
    return trials[~trials["state"].isin(["running", "interrupted"])]


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns each category's best trial by `value`, of those trained to the full budget."""
    complete = complete_trials(trials).dropna(subset="value")
    first = complete.sort_values(["value", "trial"], ascending=[False, True], kind="stable")
    return first.drop_duplicates("category").sort_values("category")


def summaries(run: Run) -> list[Summary]:
    """Summarises each category whose best trial has been scored."""
    found = (summary_of(run, category) for category in best_trials(run.trials)["category"])
    return [summary for summary in found if summary is not None]


def summary_of(run: Run, category: str) -> Summary | None:
    """Summarises one category; None while its best trial is not finalized."""
    best = best_trials(run.trials[run.trials["category"] == category]).to_dict("records")
    if not best or not has_scores(run, category):
        return None
    scores = run.scores[run.scores["category"] == category]
    return _summary(run, scores, {str(name): value for name, value in best[0].items()})


def has_scores(run: Run, category: str) -> bool:
    """True if the model of a category's best trial has been written and scored.

    A search that was given more trials may have found a better one since its last scores.
    """
    if not any(run.settings.datasets[category].report.values()):
        # Without test images there is nothing to score.
        return (run.folder / MODELS / category).is_dir()
    best = best_trials(run.trials[run.trials["category"] == category])["trial"]
    scores = run.scores[(run.scores["category"] == category) & (run.scores["role"] == "best")]
    return bool(scores["trial"].isin(best).any())


def describe(summary: Summary) -> list[str]:
    """Puts the summary into a few sentences, for the terminal and the head of `best/*.yaml`."""
    objective = objective_named(summary.objective)
    reached = _with_interval(summary.selection_value, summary.selection_interval)
    of = f" {objective.value_of}" if objective.value_of else ""
    saw = f"the search saw {reached}{of}: trials inside this interval cannot be told apart"
    if summary.aurocs["auroc_mean"] is None:
        lines = ["real defects: unknown, because good or defective test images are missing", saw]
        if summary.selection_interval.low <= _CHANCE:
            lines.append(
                "the value that the search saw cannot be told apart from chance: use more good "
                "images, train longer, at a larger image size, or use another teacher"
            )
        return lines
    images = ", ".join(f"{count} {kind}" for kind, count in summary.num_images.items() if count)
    lines = [
        f"image AUROC on {images} images, {objective.report_images}:",
        *(
            f"  {name:<10} {_with_interval(value, summary.intervals[name])}"
            for name in (*KINDS, "mean")
            if (value := summary.aurocs[f"auroc_{name}"]) is not None
        ),
    ]
    if summary.intervals["mean"].low <= _CHANCE:
        lines.append(
            "cannot be told apart from chance: label more defects, train longer, at a larger image "
            "size, or use another teacher"
        )
    lines += filter(None, (gain_in_words(summary, role) for role in REFERENCES))
    return [*lines, saw]


def shown_duration(seconds: float) -> str:
    """Formats a time for people, such as 1 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def shown_value(value: object) -> str:
    """Formats a setting's value: four digits, or six near 1, for quantiles and momenta."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.6g}" if 0.99 < value < 1 else f"{value:.4g}"


def gain_in_words(summary: Summary, role: str) -> str | None:
    """Says what the best trial gained over a reference, and whether that is more than noise.

    Returns:
        The sentence; None if there is nothing to compare: for a single config, or for margin 0 if
        the search does not vary the margin.
    """
    name = REFERENCES[role]
    if summary.role == "config" or (role == "margin_0" and "margin" not in summary.settings):
        return None
    if summary.role == role:
        return f"{name} itself is the best of those tried: tuning gained nothing over it"
    if role not in summary.gains:
        return f"{name} was not trained to the full budget: the gain over it is unknown"
    gain = summary.gains[role]
    verdict = "a real difference" if is_real(gain) else "no difference beyond noise"
    return (
        f"gain in mean AUROC over {name}: {_with_interval(gain.value, gain.interval, sign='+')}: "
        f"{verdict} (permutation test: p = {gain.p_value:.2g})"
    )


def is_real(difference: Difference) -> bool:
    """True if a difference is more than noise: p-value below 0.05, and 0 outside its interval.

    With few images only one of the two may hold, which is not sure enough.
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
    """Computes the 95 % interval of a trial's value on the selection part from its AUROCs.

    It is Newcombe's for each kind; for the mean, the half-widths are combined as for independent
    kinds.
    """
    kinds = KINDS if metric == "mean" else (metric,)
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
        num_images={kind: kinds.count(kind) for kind in (GOOD, *KINDS)},
        gains=gains,
    )
