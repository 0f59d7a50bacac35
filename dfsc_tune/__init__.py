"""Finds, per product category, the DFSC settings that detect its defects best.

This is the public Python interface, beside `dfsc_tune.results` for a run's tables. A name is
imported when it is first used, so that the package itself loads neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfsc_tune.config import TrialConfig
    from dfsc_tune.data.images import read_pixels
    from dfsc_tune.errors import UserError
    from dfsc_tune.models.detector import Detector, load_detector
    from dfsc_tune.search.single import train_config

__version__ = "0.2.0"
__all__ = [
    "Detector",
    "TrialConfig",
    "UserError",
    "load_detector",
    "read_pixels",
    "train_config",
]

_MODULES = {
    "Detector": "models.detector",
    "TrialConfig": "config",
    "UserError": "errors",
    "load_detector": "models.detector",
    "read_pixels": "data.images",
    "train_config": "search.single",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
