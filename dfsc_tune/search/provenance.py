"""The provenance of a run: its data and teachers, checked to be the same even if moved.

`base_configs` in `run.yaml` never change, because the ledger has their digest. `data` has the
present place of the data, `teachers` that of moved teachers by category.
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
    """Returns a category's config before any parameter is chosen, with present paths."""
    config = run.settings.base_configs[category]
    teacher = run.settings.teachers.get(category, config.model.teacher)
    model = config.model.model_copy(update={"teacher": teacher})
    return config.model_copy(update={"data": run.settings.data, "model": model})


def with_teachers(settings: RunSettings, given: Sequence[str], folder: Path) -> RunSettings:
    """Returns a run's settings with the present places of its teachers.

    A teacher is recognised by its weights, and serves all categories that were searched with these.

    Args:
        settings: the content of `run.yaml`.
        given: weights files or names of teachers.
        folder: the run.

    Raises:
        UserError: a file is missing, cannot be read, or holds no teacher of the run.
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
                f"(teacher_sha256 {known} then, {identity[:12]}… now); give the teacher that the "
                "run started with, or start a new run"
            )
        moved |= dict.fromkeys(categories, str(path))
    return settings.model_copy(update={"teachers": moved}) if moved else settings


def check_same(run: Run, category: str, fingerprint: str, teacher: Teacher) -> None:
    """Refuses data or a teacher that differ from the run's, as trials could not be compared.

    Args:
        run: the run.
        category: one of its categories.
        fingerprint: that of the present data.
        teacher: the present teacher.
    """
    check_same_data(run, category, fingerprint)
    check_same_teacher(run, category, teacher)


def check_same_data(run: Run, category: str, fingerprint: str) -> None:
    """Refuses data that differ from the run's; they may have moved."""
    before = run.settings.datasets[category].fingerprint
    _check_same(run, f"the data of {category}", "fingerprint", before, fingerprint)


def check_same_teacher(run: Run, category: str, teacher: Teacher) -> None:
    """Refuses a teacher that differs from the run's; it may have moved."""
    before = run.settings.datasets[category].teacher_sha256
    now = teacher_identity(teacher)
    _check_same(run, f"the teacher of {category}", "teacher_sha256", before, now)


def _check_same(run: Run, what: str, key: str, before: str, now: str) -> None:
    if now != before:
        raise UserError(
            f"{what} changed since the run in {run.folder} began ({key} "
            f"{before[:12]}… then, {now[:12]}… now); restore what was there, or start a new run"
        )
