"""Messages of a trial to the controller, as the plain values that pass through Ray Tune.

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
    """A trial's report: its progress, and where it runs."""

    progress: Progress
    node: str | None = None
    """The name of the machine that it runs on."""
    device: str | None = None
    """The device that it trains on: "cuda" or "cpu"."""

    def to_plain(self) -> dict[str, Any]:
        """Returns the report as plain values under string keys."""
        progress = asdict(self.progress)
        # As lists, because Tune flattens dicts.
        progress["metrics"] = [
            {"ema_momentum": momentum, **aurocs}
            for momentum, aurocs in self.progress.metrics.items()
        ]
        progress["losses"] = list(self.progress.losses.items())
        return {**progress, "hostname": self.node, "device": self.device}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Report:
        """Reads the report from a Tune result or a line of the ledger, which may hold more."""
        progress = {field.name: values[field.name] for field in fields(Progress)}
        progress["metrics"] = {
            entry["ema_momentum"]: {name: x for name, x in entry.items() if name != "ema_momentum"}
            for entry in values["metrics"]
        }
        progress["losses"] = dict(values["losses"])
        return cls(Progress(**progress), values["hostname"], values["device"])


def failure_to_plain(reason: str) -> dict[str, Any]:
    """Makes the message of a trial that fails while its process can go on."""
    return {_FAILURE: reason}


def failure_of(values: Mapping[str, Any]) -> str | None:
    """Returns the reason for a trial's failure in a Tune result; None for a report."""
    return values.get(_FAILURE)


def note_to_plain(text: str) -> dict[str, Any]:
    """Makes a note for the user, to be added to a report."""
    return {_NOTE: text}


def note_of(values: Mapping[str, Any]) -> str | None:
    """Returns the note in a Tune result, if any."""
    return values.get(_NOTE)
