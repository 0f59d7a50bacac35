"""Counts how often a trial's config is checked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dfsc_tune.config import TrialConfig


def count_checks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is checked to be a trial's config from now on, however it comes."""
    checked: list[object] = []
    validator = TrialConfig.__pydantic_validator__

    def validate_python(tree: object, *args: object, **options: object) -> object:
        checked.append(tree)
        return validator.validate_python(tree, *args, **options)

    monkeypatch.setattr(
        TrialConfig, "__pydantic_validator__", SimpleNamespace(validate_python=validate_python)
    )
    return checked
