"""Retrains the best settings of a search with fresh seeds, beside the paper's, and decides."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.data.fingerprint import fingerprint
from dfsc_tune.data.layout import read_category
from dfsc_tune.errors import UserError
from dfsc_tune.metrics.image import can_be_judged, judge
from dfsc_tune.models.detector import save_detector
from dfsc_tune.models.teacher import load_teacher
from dfsc_tune.results import (
    CHECKPOINTS,
    MODELS,
    REFERENCES,
    TRIALS,
    Run,
    complete_trials,
    ended_trials,
    resume_command,
    shown_value,
    space_of_run,
)
from dfsc_tune.results.confirmed import CONFIRMED, MIN_SEEDS, PAPER, Decision, decide
from dfsc_tune.results.status import is_running
from dfsc_tune.search.finalize import score_rows
from dfsc_tune.search.fixed_trials import run_fixed_trials
from dfsc_tune.search.provenance import base_config, check_same, with_teachers
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resources import driver_device
from dfsc_tune.settings import dump
from dfsc_tune.spaces.fixed_trials import categorical, space_of_trainings
from dfsc_tune.spaces.parameters import Value
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.storage.atomic import write_text
from dfsc_tune.storage.parquet import write_parquet
from dfsc_tune.training.objectives import objective_named
from dfsc_tune.training.prepare import CategoryData, prepare_category
from dfsc_tune.training.trial import finished_detector

_SEED = "seed"

Settings = dict[str, dict[str, Value]]
"""The searched values of each setting by its name: paper, margin_0, top_1, top_2 …"""


@dataclass(frozen=True)
class Confirmation:
    """The results of one category's settings with fresh seeds."""

    category: str
    settings: Settings
    decision: Decision
    report_aurocs: dict[str, list[float]]
    """Mean image AUROC on the report part for each seed, of the winner and the paper's setting;
    empty without good and anomalous images there. It decides nothing."""
    num_searched: int
    """Number of trials of the search."""
    objective: str
    config: Path

    @property
    def not_judged(self) -> dict[str, int]:
        """Number of completed seeds of each setting that has too few to be judged."""
        judged = {x.setting for x in self.decision.settings}
        left_out = self.decision.left_out
        return {name: left_out.get(name, 0) for name in self.settings if name not in judged}


def settings_to_confirm(run: Run, category: str, top: int) -> Settings:
    """Returns the paper's setting, margin 0 if searched, and the `top` best ones, each once.

    Raises:
        UserError: no trial was trained to the full budget.
    """
    names = [name for name in run.settings.searched[category] if name != _SEED]
    space = replace(space_of_run(run.settings, run.folder).for_category(category), sampler="tpe")
    base = base_config(run, category)
    found: Settings = {}
    for role, point in space.first_points():
        if role in REFERENCES:
            values = searchable_values(base.with_values(point))
            found[role] = {name: values[name] for name in names}
    trials = run.trials[run.trials["category"] == category]
    complete = complete_trials(trials).dropna(subset="value")
    if complete.empty:
        raise UserError(
            f"no trial of {category} in {run.folder} was trained to the full budget, so there is "
            f"nothing to confirm; continue with `dfsc-tune resume {run.folder}`"
        )
    ordered = complete.sort_values(["value", "trial"], ascending=[False, True], kind="stable")
    best: list[dict[str, Value]] = []
    for row in ordered[names].to_dict("records"):
        values = {str(name): value for name, value in row.items()}
        if values not in best:
            best.append(values)
    for rank, values in enumerate(best[:top], start=1):
        if values not in found.values():
            found[f"top_{rank}"] = values
    return found


def fresh_seeds(run: Run, count: int) -> list[int]:
    """Returns the first seeds with which no trial of the run was trained."""
    used = {int(seed) for seed in run.trials[_SEED]} | {run.settings.seed}
    return list(itertools.islice((x for x in itertools.count() if x not in used), count))


def confirm_space(run: Run, settings: Mapping[str, Settings], seeds: list[int]) -> SearchSpace:
    """Makes a batch of fixed trials of each category's settings, seed after seed."""
    space = space_of_run(run.settings, run.folder)
    categories = {}
    for category, of_category in settings.items():
        points = [{**values, _SEED: seed} for seed in seeds for values in of_category.values()]
        fixed = space.categories[category].fixed if category in space.categories else {}
        categories[category] = {
            "fixed": _with_files(fixed, base_config(run, category)),
            "parameters": categorical(of_category.values()),
            "starting_points": points,
        }
    return space_of_trainings(
        space,
        max(map(len, settings.values())) * len(seeds),
        fixed=space.fixed,
        parameters=categorical({_SEED: seed} for seed in seeds),
        categories=categories,
        source=f"what {run.folder} found",
    )


def confirm(
    run: Run,
    request: SearchRequest,
    console: Console,
    *,
    top: int,
    seeds: int,
    teachers: Sequence[str] = (),
) -> tuple[list[Confirmation], signal.Signals | None]:
    """Trains what is missing, decides for each category and writes the results.

    Args:
        run: the search.
        request: data, machine and the new run's name; its space is replaced.
        console: for progress.
        top: number of best settings to confirm.
        seeds: number of fresh seeds, at least two.
        teachers: teachers of the search that were moved, as files or by name.

    Returns:
        A confirmation for each category; or none, and the signal that interrupted the trainings.

    Raises:
        UserError: no search made the run, the search is still running, the data or teacher have
            changed, or as for `run_search`; or a category could not be decided; the others were.
    """
    _check_search(run, console)
    if is_running(run.folder):
        raise UserError(
            f"the search in {run.folder} is still running, so its best settings may change; wait "
            "for it, or end it first"
        )
    run = replace(run, settings=with_teachers(run.settings, teachers, run.folder))
    # Checked before hours of training, and again after them.
    for name in request.categories:
        teacher = load_teacher(base_config(run, name).model)
        check_same(run, name, fingerprint(read_category(request.data, name)), teacher)
    settings = {name: settings_to_confirm(run, name, top) for name in request.categories}
    space = confirm_space(run, settings, fresh_seeds(run, seeds))
    # Decisions are written after the trainings, when the store is no longer updated.
    request = replace(request, space=space, store=None)
    done, interrupted_by = run_fixed_trials(request, console)
    if interrupted_by is not None:
        return [], interrupted_by
    device = driver_device(request)
    found_all, problems = [], []
    for name in request.categories:
        data = prepare_category(base_config(done, name), request.data, device)
        check_same(run, name, data.fingerprint, data.trial.teacher)
        try:
            found_all.append(_conclude(run, done, data, settings[name], device))
        except UserError as error:
            problems.append(f"{name}: {error}")
    if found_all:
        _write_table(done.folder, found_all)
    if problems:
        raise UserError("; ".join(problems))
    return found_all, None


def _check_search(run: Run, console: Console) -> None:
    """Refuses a run that was not made by a search; says if trials have not ended."""
    if run.settings.continued_by != "resume":
        raise UserError(
            f"the run in {run.folder} was not made by a search, but by "
            f"`{resume_command(run.folder)}`; give the run of a search"
        )
    if unended := len(run.trials) - len(ended_trials(run.trials)):
        console.print(
            f"note: {unended} trials of the search have not ended, so the best may change; "
            f"continue them with {resume_command(run.folder)}"
        )


def describe(found: Confirmation) -> list[str]:
    """Puts the decision into a few sentences, for the terminal and the head of `best/*.yaml`."""
    lines = [
        f"{found.decision.verdict}",
        f"chosen by the selection value over fresh seeds (objective {found.objective}) after a "
        f"search of {found.num_searched} trials:",
    ]
    for x in found.decision.settings:
        line = f"  {x.setting:<9} {x.num_seeds} seeds  {x.mean:.3f} ± {x.sd:.3f}"
        if x.setting != PAPER:
            interval = x.gain_interval
            line += (
                f"  gain over the paper's {x.gain:+.3f}  ({interval.level:.0%} interval "
                f"{interval.low:+.3f} to {interval.high:+.3f})"
            )
        values = found.settings[x.setting].items()
        settings = " ".join(f"{name}={shown_value(value)}" for name, value in values)
        lines += [line, f"  {'':<9} {settings}"]
    if found.not_judged:
        named = ", ".join(f"{name} ({count} completed)" for name, count in found.not_judged.items())
        lines.append(
            f"not judged: {named}, because fewer than {MIN_SEEDS} seeds were trained in full both "
            f"here and with the paper's setting; {TRIALS} has the reasons"
        )
    if not found.report_aurocs:
        return [
            *lines,
            "real defects: unknown, because good or defective test images are missing",
        ]
    seen = objective_named(found.objective).report_images
    lines.append(f"mean image AUROC on the report part, {seen}, mean ± sd over seeds:")
    lines += [
        f"  {name:<9} {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
        for name, values in found.report_aurocs.items()
    ]
    return lines


def _conclude(
    run: Run, done: Run, data: CategoryData, settings: Settings, device: str
) -> Confirmation:
    """Decides for one category and writes the winner's config and model."""
    category = data.category.name
    of_category = done.trials[done.trials["category"] == category]
    complete = complete_trials(of_category).dropna(subset="value")
    names = list(next(iter(settings.values())))
    of_trial = [
        next(name for name, values in settings.items() if values == row)
        for row in complete[names].to_dict("records")
    ]
    complete = complete.assign(setting=of_trial)
    # In the order of the settings, not of the ends of trials.
    ranks = complete["setting"].map(list(settings).index)
    complete = complete.assign(rank=ranks).sort_values(["rank", _SEED])
    decision = decide(complete)
    base = base_config(done, category)
    detectors, trials, config_of = {}, {}, {}
    shown = complete[complete["setting"].isin([decision.winner, PAPER])]
    for row in shown.to_dict("records"):
        key = f"{row['setting']}/{row[_SEED]}"
        values = settings[row["setting"]] | {_SEED: int(row[_SEED])}
        config_of[key], trials[key] = base.with_values(values), str(row["trial"])
        detectors[key] = finished_detector(
            config_of[key],
            data.trial,
            done.folder / CHECKPOINTS / trials[key],
            origin=f"run {done.folder.name}, trial {trials[key]}",
            selection_digests=data.selection_digests,
            training_digests=data.training_digests,
        )
    path = done.folder / "best" / f"{category}.yaml"
    found = Confirmation(
        category=category,
        settings=settings,
        decision=decision,
        report_aurocs=_report_aurocs(score_rows(data, trials, detectors, device)),
        num_searched=int((run.trials["category"] == category).sum()),
        objective=data.objective.name,
        config=path,
    )
    first = next(key for key in detectors if key.startswith(f"{decision.winner}/"))
    save_detector(done.folder / MODELS / category, detectors[first])
    origin = f"Confirmed for {category} after run {run.folder.name}: trial {trials[first]}."
    write_text(path, dump(config_of[first], header="\n".join([origin, *describe(found)])))
    return found


def _report_aurocs(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Computes each setting's mean image AUROCs by seed; empty without both kinds of images."""
    found: dict[str, list[float]] = {}
    for role, scores in itertools.groupby(rows, key=lambda row: str(row["role"])):
        table = pd.DataFrame(list(scores))
        kinds = table["kind"].tolist()
        if not can_be_judged(kinds):
            return {}
        auroc = judge(table["score"].to_numpy(), kinds)["auroc_mean"]
        assert auroc is not None, "there are good and anomalous images"
        found.setdefault(role.split("/")[0], []).append(auroc)
    return found


def _write_table(folder: Path, found: list[Confirmation]) -> None:
    """Writes `confirmed.parquet`, with one row for each setting."""
    rows = pd.DataFrame([row for each in found for row in _rows(each)])
    write_parquet(folder / CONFIRMED, rows)


def _rows(found: Confirmation) -> Iterator[dict[str, Any]]:
    search = {"num_searched": found.num_searched, "objective": found.objective}
    for x in found.decision.settings:
        row = asdict(x)
        interval = row.pop("gain_interval")
        aurocs = found.report_aurocs.get(x.setting)
        yield {
            "category": found.category,
            **row,
            "gain_low": interval["low"],
            "gain_high": interval["high"],
            "judged": True,
            "winner": x.setting == found.decision.winner,
            "report_auroc": np.mean(aurocs) if aurocs else np.nan,
            "report_auroc_sd": np.std(aurocs, ddof=1) if aurocs else np.nan,
            **search,
            **found.settings[x.setting],
        }
    for name, num_seeds in found.not_judged.items():
        row = {"category": found.category, "setting": name, "num_seeds": num_seeds}
        yield {**row, "judged": False, "winner": False, **search, **found.settings[name]}


def _with_files(fixed: Mapping[str, Any], base: TrialConfig) -> dict[str, Any]:
    """Returns fixed settings with the absolute paths of the files that the run used."""
    model = {**(fixed.get("model") or {}), "teacher": base.model.teacher}
    train = {**(fixed.get("train") or {}), "penalty_images": base.train.penalty_images}
    return {**fixed, "model": model, "train": train}
