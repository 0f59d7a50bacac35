"""The head of a run's page: facts, warnings, and a card with each category's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dfsc_tune.evaluation.tables import with_interval
from dfsc_tune.metrics import KINDS
from dfsc_tune.results import (
    Run,
    Summary,
    best_trials,
    describe,
    shown_duration,
    shown_value,
)


@dataclass(frozen=True)
class Card:
    """A category's result at a glance."""

    category: str
    value: str
    """The AUROC on unseen images, or a text in its place."""
    interval: str
    details: Sequence[tuple[str, str]]
    sentences: Sequence[str]
    optimistic: bool


def card_of(run: Run, category: str, summary: Summary | None) -> Card:
    """Makes a category's card, with the AUROC on unseen images if there is one."""
    trials = run.trials[run.trials["category"] == category]
    effort = [("trials", _count_states(trials)), ("time of all trials", _hours(run, trials))]
    if summary is None:
        best = best_trials(trials).to_dict("records")
        sentence = "no trial has reached the full budget yet"
        if best:
            sentence = (
                f"best so far: trial {best[0]['trial']}, with {best[0]['value']:.3f} on the images "
                "that the search sees; numbers on the report part follow when the run ends"
            )
        return Card(category, "no result yet", "", effort, [sentence], optimistic=False)
    metric = run.settings.objective.metric
    kinds = [kind for kind in (*KINDS, "mean") if kind != metric]
    value = summary.aurocs[f"auroc_{metric}"]
    interval = summary.intervals[metric] if value is not None else None
    judged_on, *sentences = describe(summary)
    details = [
        *(
            (
                f"image AUROC, {kind}",
                with_interval(summary.aurocs[f"auroc_{kind}"], summary.intervals.get(kind)),
            )
            for kind in kinds
        ),
        ("best settings", _settings_text(summary.settings)),
        ("trial", f"{summary.trial} ({summary.role})"),
        *effort,
    ]
    return Card(
        category=category,
        value="unknown" if value is None else f"{value:.3f}",
        interval=f"{interval.low:.3f} to {interval.high:.3f}" if interval else "",
        details=details,
        # The AUROCs themselves are among the details.
        sentences=[
            f"{metric} {judged_on.rstrip(':')}" if value is not None else judged_on,
            *(x for x in sentences if not x.startswith("  ")),
            *_unlike_parts(value, summary),
        ],
        optimistic=summary.optimistic,
    )


def _unlike_parts(value: float | None, summary: Summary) -> list[str]:
    """Notes that an AUROC on unseen images lies outside the interval of the search's value."""
    seen = summary.selection_interval
    if value is None or seen.low <= value <= seen.high:
        return []
    word = "easier" if value > seen.high else "harder"
    return [
        f"the unseen images turned out {word} than those that the search saw: compare settings "
        "only on the same images"
    ]


def facts_of(run: Run) -> list[tuple[str, str]]:
    """Lists the main facts of a run."""
    settings, space = run.settings, run.settings.space
    facts = [
        ("started", settings.created),
        ("trials", _count_states(run.trials)),
        ("time of all trials", _hours(run, run.trials)),
        ("objective", f"{run.objective}, {settings.objective.metric} AUROC"),
        ("sampler", space.sampler if space else None),
        ("steps of a trial", f"{space.budget.num_steps:,}" if space else None),
        ("data", settings.data or "the built-in data"),
        ("machine", settings.hardware.processor),
        ("GPUs", ", ".join(settings.hardware.gpus) or "none"),
    ]
    return [(name, str(value)) for name, value in facts if value]


def optimistic_objectives(run: Run) -> list[str]:
    """Lists the run's objectives that report on the images they selected on."""
    objectives = [run.objective_of(category) for category in run.settings.datasets]
    return sorted({objective.name for objective in objectives if objective.optimistic})


def warnings_of(run: Run) -> list[str]:
    """Lists what a reader must know before looking at the numbers."""
    states = run.trials["state"].value_counts()
    found = [
        f"OPTIMISTIC: the objective '{name}' selected and reported on the same test images. "
        "Every number on this page is better than new images will show."
        for name in optimistic_objectives(run)
    ]
    if states.get("running", 0):
        found.append(
            f"Trials that were running when this page was made: {states['running']}. The run is "
            "still running, or was killed; make the page again when it has ended."
        )
    if states.get("interrupted", 0):
        found.append(f"The run was interrupted; trials that did not end: {states['interrupted']}.")
    if states.get("failed", 0):
        found.append(f"Failed trials: {states['failed']}; see the end of the page for the reasons.")
    for category, read in run.settings.datasets.items():
        # An optimistic objective's warning is already the first.
        warning = run.objective_of(category).warning
        found += [f"{category}: {note}" for note in read.notes if note != warning]
    return found


def _count_states(trials: pd.DataFrame) -> str:
    words = {"complete": "at full budget", "pruned": "stopped early"}
    counts = trials["state"].value_counts()
    states = ", ".join(f"{count:,} {words.get(str(x), x)}" for x, count in counts.items())
    return f"{len(trials):,}" + (f" ({states})" if states else "")


def _hours(run: Run, trials: pd.DataFrame) -> str:
    """Formats the time spent in trials, also in GPU-hours by each trial's share of a GPU."""
    on_gpu = trials["device"].fillna("").str.startswith("cuda")
    gpu_hours = float(trials.loc[on_gpu, "seconds"].sum()) / 3600
    share = run.settings.gpus_per_trial or 1.0
    text = shown_duration(float(trials["seconds"].sum()))
    return f"{text}, {gpu_hours * share:.2f} GPU-hours" if on_gpu.any() else f"{text} on CPUs"


def _settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {shown_value(value)}" for name, value in settings.items())
