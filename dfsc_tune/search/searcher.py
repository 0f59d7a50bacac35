"""A searcher over the studies of several categories, which take turns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dfsc_tune.config import TrialConfig
from dfsc_tune.search.study import CategoryStudy, State, Suggestion
from dfsc_tune.spaces.parameters import Value
from dfsc_tune.spaces.space import Role


@dataclass(frozen=True)
class SuggestedTrial:
    """A trial to run: its checked config, and the suggestion that it comes from."""

    config: TrialConfig
    suggestion: Suggestion


class StudySearcher:
    """Suggests trials of several categories in turn, each from its own study."""

    def __init__(
        self, studies: Mapping[str, CategoryStudy], bases: Mapping[str, TrialConfig]
    ) -> None:
        """Takes the studies, none of which has suggested anything.

        Args:
            studies: of each category.
            bases: each category's config before any parameter is chosen.
        """
        self._studies = dict(studies)
        self._bases = dict(bases)
        self._turn = list(studies)
        self._open: dict[str, SuggestedTrial] = {}

    def suggest(self, name: str) -> SuggestedTrial | None:
        """Suggests the next trial, with the given name; None if all have been suggested."""
        while self._turn:
            category = self._turn.pop(0)
            suggestion = self._studies[category].suggest()
            if suggestion is not None:
                self._turn.append(category)
                return self._begin(name, category, suggestion)
        return None

    def suggest_again(
        self,
        name: str,
        category: str,
        values: Mapping[str, Value],
        role: Role,
        params: Mapping[str, Value],
    ) -> SuggestedTrial:
        """Repeats the suggestion of an earlier session.

        Args:
            name: of the trial.
            category: whose study it belongs to.
            values: as `CategoryStudy.suggest_again` takes them.
            role: see there.
            params: see there.
        """
        self._turn.remove(category)
        self._turn.append(category)
        suggestion = self._studies[category].suggest_again(values, role, params)
        return self._begin(name, category, suggestion)

    def _begin(self, name: str, category: str, suggestion: Suggestion) -> SuggestedTrial:
        config = self._bases[category].with_values(suggestion.values)
        trial = self._open[name] = SuggestedTrial(config, suggestion)
        return trial

    @property
    def num_expected(self) -> dict[str, int]:
        """Number of trials that each category will have."""
        return {category: study.num_expected for category, study in self._studies.items()}

    @property
    def num_left(self) -> int:
        """Number of trials still to be suggested."""
        return sum(study.num_left for study in self._studies.values())

    def report(self, name: str, step: int, value: float) -> None:
        """Passes a report on to the trial's study."""
        trial = self._open[name]
        if trial.suggestion.number is not None:
            self._studies[trial.config.category].report(trial.suggestion.number, step, value)

    def finish(self, name: str, step: int, value: float) -> State:
        """Passes a trial's last report on to its study; returns the trial's state.

        Only a trial at the full budget is complete, and one whose value is not finite has failed.
        """
        self.report(name, step, value)
        state: State = "complete" if step >= self._open[name].config.train.num_steps else "pruned"
        if not math.isfinite(value):
            state = "failed"
        self._end(name, state, value if state == "complete" else None)
        return state

    def fail(self, name: str) -> None:
        """Tells the trial's study that it failed."""
        self._end(name, "failed")

    def _end(self, name: str, state: State, value: float | None = None) -> None:
        trial = self._open.pop(name)
        if trial.suggestion.number is not None:
            self._studies[trial.config.category].finish(trial.suggestion.number, state, value)

    def close(self) -> None:
        """Tells the studies that the trials still running will not end."""
        for name in list(self._open):
            self.fail(name)
