"""Runs a batch of fixed trials: starts it, continues it, or finds it complete."""

from __future__ import annotations

import signal
from typing import Any

from rich.console import Console

from dfsc_tune.data.fingerprint import fingerprint
from dfsc_tune.data.layout import read_category
from dfsc_tune.errors import UserError
from dfsc_tune.models.teacher import load_teacher
from dfsc_tune.results import SETTINGS, Run, ended_trials, load, space_of_run, write_settings
from dfsc_tune.results.status import status_of
from dfsc_tune.search.provenance import base_config, check_same_data, check_same_teacher
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resume import resume_search
from dfsc_tune.search.run import run_search
from dfsc_tune.spaces.space import SearchSpace


def run_fixed_trials(request: SearchRequest, console: Console) -> tuple[Run, signal.Signals | None]:
    """Trains the trials of a batch that are not trained yet.

    Args:
        request: a request whose space fixes the trials, with the place of its run.
        console: for progress.

    Returns:
        The run, and the signal that interrupted it, if any.

    Raises:
        UserError: a run of that name has other settings; or as for `run_search`.
    """
    folder = request.results / request.name
    interrupted_by = None
    if not (folder / SETTINGS).exists():
        interrupted_by = run_search(request, console).interrupted_by
    else:
        run = load(folder)
        space = _check_same(request, run)
        _follow_inputs(request, run)
        num_ended = len(ended_trials(run.trials))
        num_trials = max(request.space.budget.num_trials, space.budget.num_trials)
        num_expected = (space.for_category(x).num_expected(num_trials) for x in request.categories)
        # If it was killed after its last trial, it is not scored yet.
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
    """Returns the space of an earlier run; refuses other trainings or categories."""
    space = space_of_run(run.settings, run.folder)
    before = (_trainings(space), run.settings.categories)
    if before != (_trainings(request.space), request.categories):
        raise UserError(
            f"the run in {run.folder} has other settings or categories; give the same as before, "
            "or choose another --name"
        )
    return space


def _follow_inputs(request: SearchRequest, run: Run) -> None:
    """Records the present place of a run's data and teachers in `run.yaml`; refuses others."""
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
    """Returns a space as a tree, without the number of trials, resources and teachers' places."""
    tree = space.model_dump(mode="json")
    del tree["budget"]["num_trials"], tree["resources"]
    for group in (tree, *tree["categories"].values()):
        (group["fixed"].get("model") or {}).pop("teacher", None)
    return tree
