"""What a run was made from: its data and teachers, wherever they lie now, as they were then.

`base_configs` in `run.yaml` stay as the run began, for the ledger has their digest. Where its data
lie now stands under `data`, where the teachers of which categories lie now under `teachers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dfsc_tune.config import TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.models.state_dicts import network_of, pdn_sha256, read_pdn
from dfsc_tune.models.teacher import Teacher, teacher_identity
from dfsc_tune.models.teacher_files import find_teacher
from dfsc_tune.results import Run, RunSettings


def base_config(run: Run, category: str) -> TrialConfig:
    """A category's config before any parameter is chosen; its files are where they lie now."""
    config = run.settings.base_configs[category]
    teacher = run.settings.teachers.get(category, config.model.teacher)
    model = config.model.model_copy(update={"teacher": teacher})
    return config.model_copy(update={"data": run.settings.data, "model": model})


def with_teachers(settings: RunSettings, given: Sequence[str], folder: Path) -> RunSettings:
    """A run's settings with teachers where they lie now.

    A teacher is known by its weights: it is that of all categories that were searched with these.

    Args:
        settings: what `run.yaml` says.
        given: weights files, or names of teachers.
        folder: the run.

    Raises:
        UserError: a file is not there or cannot be read, or holds no teacher of the run.
    """
    moved = dict(settings.teachers)
    before = {x: read.teacher_sha256 for x, read in settings.datasets.items()}
    for teacher in given:
        path = find_teacher(teacher).resolve()
        identity = pdn_sha256(read_pdn(path, network_of(path)))
        categories = [x for x, its in before.items() if its == identity]
        if not categories:
            known = ", ".join(sorted({f"{its[:12]}…" for its in before.values()}))
            raise UserError(
                f"{path} holds other weights than the teacher of the run in {folder} "
                f"(teacher_sha256 {known} then, {identity[:12]}… now); give the file that the run "
                "began with, or start a new run"
            )
        moved |= dict.fromkeys(categories, str(path))
    return settings.model_copy(update={"teachers": moved}) if moved else settings


def check_same(run: Run, category: str, fingerprint: str, teacher: Teacher) -> None:
    """Refuses data and a teacher other than the run's: its trials could not be compared.

    Args:
        run: the run.
        category: one of its.
        fingerprint: of the data that are there now.
        teacher: that is there now.
    """
    check_same_data(run, category, fingerprint)
    check_same_teacher(run, category, teacher)


def check_same_data(run: Run, category: str, fingerprint: str) -> None:
    """Refuses data other than the run's, wherever they lie: see `check_same`."""
    before = run.settings.datasets[category].fingerprint
    _check_same(run, f"the data of {category}", "fingerprint", before, fingerprint)


def check_same_teacher(run: Run, category: str, teacher: Teacher) -> None:
    """Refuses a teacher other than the run's, wherever it lies: see `check_same`."""
    before = run.settings.datasets[category].teacher_sha256
    now = teacher_identity(teacher)
    _check_same(run, f"the teacher of {category}", "teacher_sha256", before, now)


def _check_same(run: Run, what: str, key: str, before: str, now: str) -> None:
    if now != before:
        raise UserError(
            f"{what} changed since the run in {run.folder} began ({key} "
            f"{before[:12]}… then, {now[:12]}… now); restore what was there, or start a new run"
        )
