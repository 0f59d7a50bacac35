"""Damaged files of every kind end in one sentence or a result, never in another exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import KINDS, fuzz

# Of all mutations of its kind, each once; 100 of each are `python -m tests.fuzz`.
TIMES = 12


@pytest.mark.parametrize("kind", list(KINDS))
def test_damage_is_refused_or_read(kind: str, tmp_path: Path) -> None:
    outcome = fuzz(kind, TIMES, tmp_path, seed=7)
    assert outcome.failures == []
    assert sum(outcome.counts.values()) == TIMES
