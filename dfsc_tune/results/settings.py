"""`run.yaml`: the settings of a run, its data and its machine.

A file that is read and written again keeps exactly the settings that were in it; defaults that this
version adds are not written.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from dfsc_tune import __version__
from dfsc_tune.config import ObjectiveConfig, ObjectiveName, TrialConfig
from dfsc_tune.errors import UserError
from dfsc_tune.results.schema import SETTINGS
from dfsc_tune.settings import RuleError, Settings, validate
from dfsc_tune.spaces.space import SearchSpace
from dfsc_tune.storage.atomic import write_text
from dfsc_tune.storage.documents import read_yaml
from dfsc_tune.storage.names import FileName

VERSION = 2
"""The version of the file's layout. dfsc-tune 0.1.0 wrote version 1, without the key."""

ContinuedBy = Literal["resume", "confirm", "reproduce"]
Device = Literal["auto", "cpu"]
Texts = Annotated[tuple[str, ...], Field(strict=False)]

_HEADER = "# The exact settings, versions and data of this run, written before its first trial.\n"


class Hardware(Settings):
    """The machine that led a run."""

    platform: str
    processor: str
    num_cpus: int | None
    gpus: Texts
    """Their names."""


class DatasetRecord(Settings):
    """A category's data as a run found them."""

    fingerprint: str
    """A digest of the images, their masks, and the splits and kinds they belong to."""
    layout: str
    train: int
    """Number of images, as are the numbers below."""
    validation: int
    objective: ObjectiveName
    """The objective that judges the category's trials; never `auto`."""
    selection: dict[str, int]
    """Number of images that the search sees, by kind."""
    report: dict[str, int]
    """Number of images that the final numbers come from, by kind."""
    teacher_sha256: str
    channel_statistics_sha256: str
    teacher_features_sha256: str
    notes: Texts = ()


class Resumption(Settings):
    """One resumption of a run: its versions, machine and time."""

    versions: dict[str, str | None]
    git_commit: str | None
    hardware: Hardware
    created: str
    gpus: int | None
    address: str | None


class RunSettings(Settings):
    """Everything in `run.yaml`."""

    version: Annotated[int, Field(ge=1, le=VERSION)] = VERSION
    name: FileName
    categories: Annotated[tuple[FileName, ...], Field(strict=False)]
    data: str | None
    """The folder or store that now holds the categories; None for the built-in data."""
    seed: int
    objective: ObjectiveConfig
    """The requested objective; if its name is `auto`, `datasets` name the ones chosen."""
    searched: dict[str, Texts]
    """By category, the settings that vary, or that are shown for a single training."""
    gpus: int | None = None
    """The requested number; None means all of the machine."""
    gpus_per_trial: float | None = None
    """None in a single training."""
    device: Device = "auto"
    address: str | None = None
    """The Ray cluster that was joined."""
    store: str | None = None
    """The results folder in an object store, where the run is kept."""
    continued_by: ContinuedBy = "resume"
    """The command that continues the run."""
    continued_with: Texts = ()
    """The arguments of that command, if it is not `resume`."""
    space: SearchSpace | None = None
    """None in a single training."""
    config: TrialConfig | None = None
    """The config of a single training; None in a search."""
    base_configs: dict[str, TrialConfig] = Field(default_factory=dict)
    """By category, a trial's config before any parameter is chosen."""
    teachers: dict[str, str] = Field(default_factory=dict)
    """By category, the present place of a teacher's file that was moved."""
    datasets: dict[str, DatasetRecord]
    versions: dict[str, str | None]
    """Versions of packages; None for those not installed."""
    git_commit: str | None
    hardware: Hardware
    created: str
    """Time of the run's start: ISO 8601, UTC."""
    resumed: Annotated[tuple[Resumption, ...], Field(strict=False)] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, tree: Any) -> Any:
        """Splits the command that version 1 gives as one text into its name and arguments."""
        if not (isinstance(tree, dict) and isinstance(tree.get("go_on_by"), str)):
            return tree
        tree = dict(tree)
        _, tree["continued_by"], *tree["continued_with"] = shlex.split(tree.pop("go_on_by"))
        return tree

    @model_validator(mode="after")
    def _check(self) -> Self:
        by_category: dict[str, Collection[str]] = {
            "searched": self.searched,
            "datasets": self.datasets,
        }
        if self.space is not None:
            by_category["base_configs"] = self.base_configs
        for name, found in by_category.items():
            if lacking := [x for x in self.categories if x not in found]:
                raise RuleError((name,), f"lacks the category {lacking[0]}")
        return self

    @property
    def digest(self) -> str:
        """The sha256 of all that decides a search's trials, except their number and their machines.

        Only settings in the file count, so a setting that a later version adds with a default does
        not change the digest of earlier files. Code that reads earlier files must therefore leave
        `space`, `seed` and `base_configs` as they are there.
        """
        tree = self.model_dump(
            mode="json",
            include={"space": True, "seed": True, "base_configs": True},
            exclude={"space": {"resources": True, "budget": {"num_trials": True}}},
            exclude_unset=True,
        )
        text = json.dumps([tree["space"], tree["seed"], tree["base_configs"]], sort_keys=True)
        return sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The text of `run.yaml`."""
        said = self.model_dump(mode="json", exclude_unset=True, exclude={"version"})
        tree = {"version": VERSION, **said}
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def write_settings(folder: Path, settings: RunSettings) -> None:
    """Writes `run.yaml`: everything needed to understand and repeat the run."""
    write_text(folder / SETTINGS, _HEADER + settings.to_yaml())


def read_settings(folder: Path) -> RunSettings:
    """Reads `run.yaml`.

    Raises:
        UserError: the file is missing, damaged, not that of a run, or of a later version with more
            settings; the error names the file and the dotted path.
    """
    path = folder / SETTINGS
    try:
        tree = read_yaml(path)
    except UserError as error:
        raise UserError(f"{error}; restore it, or start a new run") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} is damaged or not that of a run; restore it, or start a new run")
    try:
        return validate(RunSettings, tree, source=str(path))
    except UserError as error:
        raise UserError(f"{error}; {_way_out(tree)}") from error


def space_of_run(settings: RunSettings, folder: Path) -> SearchSpace:
    """Returns the search space of the run in a folder.

    Raises:
        UserError: no search made the run.
    """
    if settings.space is None:
        raise UserError(f"the run in {folder} was not made by a search; give a run that was")
    return settings.space


def _way_out(tree: Mapping[str, Any]) -> str:
    """The way out for a `run.yaml` that this version cannot read."""
    try:
        writer = [tree, *tree.get("resumed", ())][-1]["versions"]["dfsc-tune"]
    except (KeyError, TypeError):
        writer = __version__
    if writer == __version__:
        return "restore it, or start a new run"
    return (
        f"dfsc-tune {writer} wrote the file and this is dfsc-tune {__version__}: use the version "
        "that wrote it, or restore the file"
    )
