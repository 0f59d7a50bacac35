"""Whether a run that was disturbed left what an undisturbed one does."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from dfsc_tune import results
from tests.support.trays import CATEGORY

# What the clock decides; and a trial that went on may tell why (`state` says whether it failed).
_MAY_DIFFER = ["seconds", "node", "device", "error"]


def differences(reference: Path, run: Path) -> list[str]:
    """In what a run differs from its reference, but for the time that things took.

    Args:
        reference: a finished run's folder.
        run: another of the same search.
    """
    ours, theirs = results.load(run), results.load(reference)
    found = []
    for name in ("trials", "reports", "scores"):
        a, b = (_rows(getattr(x, name)) for x in (ours, theirs))
        if not a.equals(b):
            found.append(f"{name} differ: {len(a)} rows, not {len(b)}\n{_first_difference(a, b)}")
    for path in ("models/{}/model.safetensors",):
        a, b = (sha256((x / path.format(CATEGORY)).read_bytes()) for x in (run, reference))
        if a.digest() != b.digest():
            found.append(f"{path} differs")
    for what in (_study, _suggested):
        if what(run) != what(reference):
            found.append(f"{what.__name__} differs: {what(run)}, not {what(reference)}")
    return found


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    kept = table.drop(columns=[x for x in _MAY_DIFFER if x in table])
    keys = [x for x in ("trial", "role", "step", "ema_momentum", "image") if x in kept]
    return kept.sort_values(keys).reset_index(drop=True)


def _first_difference(a: pd.DataFrame, b: pd.DataFrame) -> str:
    merged = a.merge(b, how="outer", indicator=True)
    return str(merged[merged["_merge"] != "both"].head(4).to_dict("records"))


def _study(run: Path) -> list[tuple[Any, ...]]:
    """What optuna-dashboard would show."""
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).get_trials()
    return [(x.number, x.state.name, x.params, x.intermediate_values, x.value) for x in trials]


def _suggested(run: Path) -> list[tuple[str, str]]:
    """Each suggestion, in its order: none is there twice."""
    lines = (run / "ledger.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [(x["trial"], str(x["values"])) for x in events if x["event"] == "suggested"]
