"""The studies of several categories as one: they take turns, and every report reaches Optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dfsc_tune.config import TrialConfig
from dfsc_tune.search.study import CategoryStudy, State, Suggestion

# Keys of what a trial reports to Tune.
VALUE = "value"
STEP = "step"
FAILURE = "failure"
DEVICE = "device"


class StudySearcher:
    """Suggests trials of several categories in turn, each from its own study.

    A trial's Tune config is `{"category", "role", "trial_config"}`, the last a plain tree of its
    settings.
    """

    def __init__(
        self, studies: Mapping[str, CategoryStudy], bases: Mapping[str, TrialConfig]
    ) -> None:
        self._studies = dict(studies)
        self._bases = dict(bases)
        self._turn = list(studies)
        self._asked: dict[str, tuple[str, Suggestion]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial's Tune config; None if all have been suggested."""
        while self._turn:
            category = self._turn.pop(0)
            suggestion = self._studies[category].suggest()
            if suggestion is None:
                continue
            self._turn.append(category)
            self._asked[trial_id] = (category, suggestion)
            return self.config(trial_id)
        return None

    def suggest_again(self, trial_id: str, category: str, **suggestion: Any) -> None:
        """Suggests a trial that an earlier session suggested.

        Args:
            trial_id: its name.
            category: whose study it belongs to.
            suggestion: as `CategoryStudy.suggest_again` takes it.
        """
        self._turn.remove(category)
        self._turn.append(category)
        self._asked[trial_id] = (category, self._studies[category].suggest_again(**suggestion))

    def asked(self, trial_id: str) -> tuple[str, Suggestion]:
        """The category and suggestion of a trial that has not ended."""
        return self._asked[trial_id]

    def config(self, trial_id: str) -> dict[str, Any]:
        """The Tune config of a trial that has not ended."""
        category, suggestion = self._asked[trial_id]
        return {
            "category": category,
            "role": suggestion.role,
            "trial_config": self._bases[category].with_values(suggestion.values).model_dump(),
        }

    @property
    def num_expected(self) -> dict[str, int]:
        """How many trials each category is to have."""
        return {category: study.num_expected for category, study in self._studies.items()}

    @property
    def num_left(self) -> int:
        """How many trials are still to be suggested."""
        return sum(study.num_left for study in self._studies.values())

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Passes a report on to the trial's study."""
        category, suggestion = self._asked[trial_id]
        if suggestion.number is not None:
            self._studies[category].report(suggestion.number, result[STEP], result[VALUE])

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Passes a trial's last report on to its study, and how the trial ended with it."""
        self.on_trial_result(trial_id, result)
        category, suggestion = self._asked.pop(trial_id)
        if suggestion.number is not None:
            state = end_state(result, self._bases[category].train.num_steps)
            value = result[VALUE] if state == "complete" else None
            self._studies[category].finish(suggestion.number, state, value)

    def on_trial_error(self, trial_id: str) -> None:
        """Tells the trial's study that it failed."""
        category, suggestion = self._asked.pop(trial_id)
        if suggestion.number is not None:
            self._studies[category].finish(suggestion.number, "failed")

    def close(self) -> None:
        """Tells the studies that trials still running will not end: a search was broken off."""
        for trial_id in list(self._asked):
            self.on_trial_error(trial_id)


def end_state(result: Mapping[str, Any], num_steps: int) -> State:
    """How a trial ended, from its last report: only one at the full budget is complete."""
    if not math.isfinite(result[VALUE]):
        return "failed"
    return "complete" if result[STEP] >= num_steps else "pruned"
