"""Carries out a list of trainings: begun, gone on with, or there already."""

from __future__ import annotations

import signal
from typing import Any

from rich.console import Console

from dfsc_tune.data.fingerprint import fingerprint
from dfsc_tune.data.layout import read_category
from dfsc_tune.errors import UserError
from dfsc_tune.models.teacher import load_teacher
from dfsc_tune.results import SETTINGS, Run, load, space_of_run, write_settings
from dfsc_tune.results.status import status_of
from dfsc_tune.search.provenance import base_config, check_same_data, check_same_teacher
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resume import resume_search
from dfsc_tune.search.run import run_search
from dfsc_tune.spaces.space import SearchSpace


def carry_out(request: SearchRequest, console: Console) -> tuple[Run, signal.Signals | None]:
    """Trains what of a list is not trained yet; the run, and the signal that broke it off if so.

    Args:
        request: with the list as its space, and where its run is.
        console: for progress.

    Raises:
        UserError: a run of that name has other settings; or as `run_search`.
    """
    folder = request.results / request.name
    interrupted_by = None
    if not (folder / SETTINGS).exists():
        interrupted_by = run_search(request, console).interrupted_by
    else:
        run = load(folder)
        space = _check_same(request, run)
        _follow_inputs(request, run)
        num_ended = int((~run.trials["state"].isin(["running", "interrupted"])).sum())
        num_trials = max(request.space.budget.num_trials, space.budget.num_trials)
        num_expected = (space.for_category(x).num_expected(num_trials) for x in request.categories)
        # One that was killed with its trainings done has yet to be scored.
        if num_ended < sum(num_expected) or not status_of(run).ended:
            interrupted_by = resume_search(
                folder,
                request.data,
                console,
                data_name=request.data_name,
                num_trials=num_trials,
                gpus=request.gpus,
                address=request.address,
                device=request.device,
                by=request.continued_by,
            ).interrupted_by
    return load(folder), interrupted_by


def _check_same(request: SearchRequest, run: Run) -> SearchSpace:
    """The space of a run begun before; refuses one of other trainings or categories."""
    space = space_of_run(run.settings, run.folder)
    before = (_trainings(space), run.settings.categories)
    if before != (_trainings(request.space), request.categories):
        raise UserError(
            f"the run in {run.folder} was begun with other settings or categories; ask for the "
            "same, or choose another --name"
        )
    return space


def _follow_inputs(request: SearchRequest, run: Run) -> None:
    """Notes in `run.yaml` where a run's data and teachers lie now; refuses others."""
    now = run.settings
    if request.data_name != now.data:
        for name in request.categories:
            check_same_data(run, name, fingerprint(read_category(request.data, name)))
        now = now.model_copy(update={"data": request.data_name})
    for name in request.categories:
        asked = request.space.for_category(name).base_config(name).with_absolute_paths().model
        if asked.teacher != base_config(run, name).model.teacher:
            check_same_teacher(run, name, load_teacher(asked))
            now = now.model_copy(update={"teachers": {**now.teachers, name: asked.teacher}})
    if now != run.settings:
        write_settings(run.folder, now)


def _trainings(space: SearchSpace) -> dict[str, Any]:
    """What a space says of its trainings, but for how many, where they run and teachers' places."""
    tree = space.model_dump(mode="json")
    del tree["budget"]["num_trials"], tree["resources"]
    for group in (tree, *tree["categories"].values()):
        (group["fixed"].get("model") or {}).pop("teacher", None)
    return tree
