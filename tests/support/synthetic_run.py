"""Runs made up of tables alone, as large as asked for, so that pages of them can be tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.results import (
    REPORTS,
    SCORES,
    TRIALS,
    RunSettings,
    write_settings,
    write_table,
)

CATEGORY = "tray"
BUDGET = {
    "num_trials": 40,
    "num_steps": 90,
    "report_interval": 10,
    "grace_period": 10,
    "reduction_factor": 3,
}
PARAMETERS = {
    "margin": {"type": "float", "low": 0.0, "high": 2.0, "scale": "linear"},
    "quantile": {"type": "float", "low": 0.9, "high": 0.9999, "scale": "log_complement"},
    "alpha": {"type": "float", "low": 0.25, "high": 8.0, "scale": "log"},
}
KINDS = ("good", "logical", "structural")
_STATES = ("pruned", "pruned", "complete")


def dataset(**changes: Any) -> dict[str, Any]:
    """What `run.yaml` says of a category's data."""
    counts = dict.fromkeys(KINDS, 30)
    return {
        "fingerprint": "0" * 32,
        "layout": "loco",
        "train": 60,
        "validation": 20,
        "objective": "holdout",
        "selection": counts,
        "report": counts,
        "teacher_sha256": "0" * 64,
        "channel_statistics_sha256": "0" * 64,
        "teacher_features_sha256": "0" * 64,
        "notes": [],
        **changes,
    }


def run_tree(categories: tuple[str, ...] = (CATEGORY,), **changes: Any) -> dict[str, Any]:
    """What `run.yaml` says, as plain values."""
    objective = changes.pop("objective", {"name": "holdout", "metric": "mean"})
    return {
        "name": "made_up",
        "created": "2026-11-25T00:00:00+00:00",
        "categories": list(categories),
        "data": None,
        "seed": 0,
        "objective": objective,
        "searched": {category: list(PARAMETERS) for category in categories},
        "gpus_per_trial": 0.25,
        "space": {"parameters": PARAMETERS, "budget": BUDGET, "sampler": "tpe", "categories": {}},
        "base_configs": {category: {"category": category} for category in categories},
        "datasets": {category: dataset(objective=objective["name"]) for category in categories},
        "versions": {"python": "3.11"},
        "git_commit": None,
        "hardware": {"platform": "os", "processor": "a processor", "num_cpus": 2, "gpus": []},
        **changes,
    }


def run_settings(categories: tuple[str, ...] = (CATEGORY,), **changes: Any) -> RunSettings:
    """What `run.yaml` says."""
    return RunSettings.model_validate(run_tree(categories, **changes))


def make_run(
    folder: Path,
    num_trials: int = 40,
    categories: tuple[str, ...] = (CATEGORY,),
    error: str = "a loss became nan",
    image: str = "test/{kind}/{index:03d}.png",
    **settings: Any,
) -> Path:
    """A finished run: AUROC peaks at margin 0.8, every third trial is complete, one fails."""
    write_settings(folder, run_settings(categories, **settings))
    trials: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for seed, category in enumerate(categories):
        rng = np.random.default_rng(seed)
        rows = [_trial(category, number, rng, error) for number in range(num_trials)]
        trials += rows
        for row in rows:
            reports += _reports(row, rng)
        complete = [row for row in rows if row["state"] == "complete"]
        best = max(complete, key=lambda row: float(row["value"]))
        for role, separation in (("best", 2.0), ("paper", 1.5), ("margin_0", 0.5)):
            of_role = next((row for row in rows if row["role"] == role), best)
            scores += _scores(of_role, role, separation, rng, image)
    write_table(folder, TRIALS, trials)
    write_table(folder, REPORTS, reports)
    write_table(folder, SCORES, scores)
    return folder


def _trial(category: str, number: int, rng: np.random.Generator, error: str) -> dict[str, Any]:
    role = {0: "paper", 1: "margin_0"}.get(number, "sampler")
    state = "complete" if number < 2 else "failed" if number == 3 else _STATES[number % 3]
    settings = searchable_values(TrialConfig(category=category))
    if number == 1:
        settings["margin"] = 0.0
    if number > 1:
        settings |= {
            "margin": float(rng.uniform(0, 2)),
            "quantile": float(1 - 10 ** rng.uniform(-4, -1)),
            "alpha": float(2 ** rng.uniform(-2, 3)),
        }
    value = 0.9 - 0.1 * (float(settings["margin"]) - 0.8) ** 2 + float(rng.normal(0, 0.01))
    step = {"complete": 90, "pruned": int(rng.choice([10, 30])), "failed": 0}[state]
    value -= 0.05 * (state == "pruned")
    reached = None if state == "failed" else value
    return {
        "category": category,
        "trial": f"{category[:3]}{number:05d}",
        "role": role,
        "state": state,
        **settings,
        "value": reached,
        "auroc_logical": reached and reached - 0.05,
        "auroc_structural": reached and reached + 0.05,
        "auroc_mean": reached,
        "best_value": reached,
        "best_step": step or None,
        "step": step,
        "num_steps": 90,
        "seconds": 36.0 if step else None,
        "node": "node",
        "device": "cuda" if step else None,
        "error": error if state == "failed" else None,
    }


def _reports(row: dict[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    for step in range(10, row["step"] + 1, 10):
        value = row["value"] - 0.1 * (1 - step / row["step"])
        for momentum in (row["ema_momentum"], 0.5):
            found.append(
                {
                    "category": row["category"],
                    "trial": row["trial"],
                    "step": step,
                    "ema_momentum": momentum,
                    "own_momentum": momentum != 0.5,
                    "auroc_logical": value - 0.05,
                    "auroc_structural": value + 0.05,
                    "auroc_mean": value,
                    "loss_total": float(rng.random()),
                    "seconds": 0.4 * step,
                }
            )
    return found


def _scores(
    trial: dict[str, Any], role: str, separation: float, rng: np.random.Generator, image: str
) -> list[dict[str, Any]]:
    return [
        {
            "category": trial["category"],
            "trial": trial["trial"],
            "role": role,
            "image": image.format(kind=kind, index=index),
            "kind": kind,
            "defect_type": kind if kind == "good" else f"{kind}_{index % 3}",
            "score": float(rng.normal(3 if kind == "good" else 3 + separation)),
            "threshold": 5.0,
        }
        for kind in KINDS
        for index in range(30)
    ]
