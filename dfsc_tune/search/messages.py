"""What a trial tells the controller, in the plain values that pass through Ray Tune.

The ledger keeps each report in the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dfsc_tune.progress import Progress

_FAILURE = "failure"
_NOTE = "note"


@dataclass(frozen=True)
class Report:
    """What a trial tells at a report."""

    progress: Progress
    node: str | None = None
    """The name of the machine that it runs on."""
    device: str | None = None
    """What it trains on there: "cuda" or "cpu"."""

    def to_plain(self) -> dict[str, Any]:
        """The report as plain values under string keys."""
        progress = asdict(self.progress)
        # As lists, for Tune would make a dict's entries entries of its own.
        progress["metrics"] = [
            {"ema_momentum": momentum, **aurocs}
            for momentum, aurocs in self.progress.metrics.items()
        ]
        progress["losses"] = list(self.progress.losses.items())
        return {**progress, "hostname": self.node, "device": self.device}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Report:
        """The report that a Tune result or a line of the ledger holds, among other things."""
        progress = {field.name: values[field.name] for field in fields(Progress)}
        progress["metrics"] = {
            entry["ema_momentum"]: {name: x for name, x in entry.items() if name != "ema_momentum"}
            for entry in values["metrics"]
        }
        progress["losses"] = dict(values["losses"])
        return cls(Progress(**progress), values["hostname"], values["device"])


def failure_to_plain(reason: str) -> dict[str, Any]:
    """What a trial tells instead of a report when it cannot go on, though its process can."""
    return {_FAILURE: reason}


def failure_of(values: Mapping[str, Any]) -> str | None:
    """The reason that a Tune result gives for a trial that cannot go on; None for a report."""
    return values.get(_FAILURE)


def note_to_plain(text: str) -> dict[str, Any]:
    """What a trial adds to a report that its user should know of."""
    return {_NOTE: text}


def note_of(values: Mapping[str, Any]) -> str | None:
    """The note that a Tune result bears, if any."""
    return values.get(_NOTE)
