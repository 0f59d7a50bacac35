"""Reads declarations of defects: MVTec's `defects_config.json` and a user's `dataset.yaml`.

`dataset.yaml` declares each defect type (a folder under `test/`) as logical or structural:

    defect_types:
      missing_screw: logical
      scratch: structural

It lies in the data folder, for all categories, or in a category's folder; if both name a defect
type, the category's declaration counts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from dfsc_tune.data.records import DefectEntry, DefectKind
from dfsc_tune.errors import UserError
from dfsc_tune.storage.documents import read_json, read_yaml

DEFECTS_CONFIG = "defects_config.json"
DATASET_FILE = "dataset.yaml"

_Value = TypeVar("_Value")


class _ConfigEntry(BaseModel):
    # The file is MVTec's, not the user's, so unknown keys are ignored.
    model_config = ConfigDict(strict=True)

    defect_name: str
    pixel_value: Annotated[int, Field(ge=1, le=255)]
    saturation_threshold: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    relative_saturation: bool

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.relative_saturation and self.saturation_threshold > 1:
            raise ValueError("a relative saturation_threshold is a share, 1 at most")
        return self


class _DatasetFile(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    defect_types: dict[str, DefectKind] = {}


def read_defects_config(path: Path) -> dict[int, DefectEntry]:
    """Reads the entries of a `defects_config.json` by pixel value; empty if there is no file.

    Raises UserError if the file is not JSON, an entry lacks or mistypes a field, or two entries
    share a pixel value.
    """
    if not os.path.lexists(path):
        return {}
    content = read_json(_checked(path))
    entries: dict[int, DefectEntry] = {}
    for entry in _validated(TypeAdapter(list[_ConfigEntry]), content, path):
        if entry.pixel_value in entries:
            raise UserError(f"'{path}' gives pixel value {entry.pixel_value} to two defects.")
        entries[entry.pixel_value] = DefectEntry(
            entry.defect_name, entry.saturation_threshold, entry.relative_saturation
        )
    return entries


def read_defect_kinds(path: Path) -> dict[str, DefectKind]:
    """Reads the kind of each defect type that a `dataset.yaml` declares; empty if there is no file.

    Raises UserError, naming file and key, if the file is not YAML or holds an unknown key or kind.
    """
    if not os.path.lexists(path):
        return {}
    content = read_yaml(_checked(path))
    declared = _validated(TypeAdapter(_DatasetFile), {} if content is None else content, path)
    if "good" in declared.defect_types:
        raise UserError(f"'{path}': defect_types.good: 'good' holds good images, never defects.")
    return declared.defect_types


def _checked(path: Path) -> Path:
    if path.exists() and not path.is_file():
        raise UserError(f"'{path}' is not a file: delete it, or put a file in its place.")
    return path


def _validated(adapter: TypeAdapter[_Value], content: Any, path: Path) -> _Value:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = f"{first['msg'].removeprefix('Value error, ')}, not {first['input']!r}"
        if first["type"] == "extra_forbidden":
            known = ", ".join(_DatasetFile.model_fields)
            reason = f"this key is unknown; known: {known}"
        raise UserError(f"'{path}': {key}: {reason}.") from error
