"""Goes on with a run whose ledger is damaged, from its whole lines; nothing is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from dfsc_tune.errors import UserError
from dfsc_tune.results import (
    CHECKPOINTS,
    LEDGER,
    MODELS,
    REPORTS,
    SCORES,
    TRIALS,
    Run,
    read_settings,
    space_of_run,
)
from dfsc_tune.results.status import is_running
from dfsc_tune.search.events import Event, read_lines
from dfsc_tune.storage.atomic import atomic_path
from dfsc_tune.storage.names import path_below

_LEFT_BY_TRIALS = (TRIALS, REPORTS, SCORES, CHECKPOINTS, MODELS)


def keep_lines(folder: Path, num_lines: int) -> Path:
    """Cuts a run's ledger to its first lines.

    The ledger as it was, the tables, and the checkpoints of trials that the lines do not know as
    complete are moved into a folder of their own in the run.

    Args:
        folder: the run.
        num_lines: how many lines to keep.

    Returns:
        The folder with what was moved.

    Raises:
        UserError: another process goes on with the run, it is kept in an object store, or so many
            lines are not whole.
    """
    settings = read_settings(folder)
    if settings.store is not None:
        raise UserError(
            "--keep-lines changes a run on this machine, and this one is kept in "
            f"{settings.store}: restore its {LEDGER} there, or start a new run"
        )
    if is_running(folder):
        raise UserError(f"the run in {folder} is still going on; end that process first")
    path = folder / LEDGER
    lines = read_lines(path)
    if num_lines > len(lines.events):
        raise UserError(
            f"{path} has {len(lines.events)} whole lines, not {num_lines}; keep those or fewer"
        )
    content = path.read_bytes().splitlines(keepends=True)[:num_lines]
    num_steps = space_of_run(settings, folder).budget.num_steps
    complete = _complete_trials(lines.events[:num_lines], num_steps)
    # All are checked before anything is moved.
    incomplete = [
        path_below(folder, f"{CHECKPOINTS}/{name}")
        for name in _trials_with_checkpoints(folder)
        if name not in complete
    ]
    aside = _free_folder(folder)
    shutil.copy2(path, aside / LEDGER)
    for name in (TRIALS, REPORTS, SCORES):
        if (folder / name).exists():
            (folder / name).replace(aside / name)
    for checkpoint in incomplete:
        (aside / CHECKPOINTS).mkdir(exist_ok=True)
        checkpoint.replace(aside / CHECKPOINTS / checkpoint.name)
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(content))
    return aside


def check_not_emptied(folder: Path) -> None:
    """Refuses a run whose ledger says nothing though its trials have left something."""
    for name in _LEFT_BY_TRIALS:
        if (folder / name).exists():
            raise UserError(
                f"the ledger {folder / LEDGER} is damaged: it is empty, and {name} is there: "
                "restore the file, or start a new run"
            )


def check_tail(run: Run, steps: dict[str, int]) -> None:
    """Refuses a run whose ledger has lost lines at its end.

    Args:
        run: as its tables tell it.
        steps: what the ledger tells: of each trial its last step.
    """
    for row in run.trials.to_dict("records"):
        name, step = str(row["trial"]), int(row["step"])
        if steps.get(name, -1) < step:
            raise _cut_short(run.folder, f"{TRIALS} knows trial {name} at step {step}")
    for name in _trials_with_checkpoints(run.folder):
        if name not in steps:
            raise _cut_short(run.folder, f"there is a checkpoint of trial {name}")


def _cut_short(folder: Path, evidence: str) -> UserError:
    num_lines = len(read_lines(folder / LEDGER).events)
    return UserError(
        f"the ledger {folder / LEDGER} is damaged: lines at its end are lost, for {evidence}; "
        f"the {num_lines} that are there are whole: restore the file, go on from these by "
        f"`dfsc-tune resume --keep-lines {num_lines}`, or start a new run"
    )


def _complete_trials(events: Collection[Event], num_steps: int) -> set[str]:
    reported = (event for event in events if event["event"] == "reported")
    return {event["trial"] for event in reported if event["step"] >= num_steps}


def _trials_with_checkpoints(folder: Path) -> list[str]:
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir():
        return []
    return sorted(x.name for x in checkpoints.iterdir() if x.is_dir() and x.name[:1] != ".")


def _free_folder(folder: Path) -> Path:
    number = 1
    while (free := folder / f"damaged-{number}").exists():
        number += 1
    free.mkdir()
    return free
