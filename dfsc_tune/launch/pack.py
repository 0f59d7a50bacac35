"""Packs a command of `dfsc-tune` with the local files that it needs, to run it on a cluster."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import yaml

from dfsc_tune.errors import UserError
from dfsc_tune.models.teacher_files import RANDOM, card_path, find_teacher, is_path, user_folder
from dfsc_tune.storage.digest import file_sha256
from dfsc_tune.storage.documents import compose_yaml, read_text
from dfsc_tune.storage.object_store import Store, is_remote

_COMMANDS = ("search", "resume")
_WAIT = ("--wait-for-gpus", "30")
_MUST_BE_SHARED = (
    "must be an address such as s3://BUCKET/runs, or an absolute path that every node of the "
    "cluster shares: anything else is lost with the cluster"
)


@dataclass(frozen=True)
class Job:
    """A command that can be submitted."""

    command: str
    """The command for a shell on the cluster."""
    run: str
    """The place of its run: an address, or a path on the cluster."""


def pack(words: Sequence[str], folder: Path, name: str, *, wait: bool) -> Job:
    """Copies the local files that a command names into a folder, in which the job will run.

    Args:
        words: the words of the command, without `dfsc-tune`.
        folder: an empty folder, which is sent to the cluster.
        name: name of the run, if the command gives none.
        wait: whether the cluster starts GPU machines on demand.

    Raises:
        UserError: the command cannot be run on a cluster; the error says what to change.
    """
    if not words or words[0] not in _COMMANDS:
        raise UserError(f"give a command after --: {' or '.join(_COMMANDS)}, as on this machine")
    words = [part for word in words for part in _split(word)]
    options = _options(words)
    if "--address" in options:
        raise UserError("leave out --address: a job runs on the cluster that it is sent to")
    if (data := options.get("--data")) is not None:
        _check_place(
            data,
            f"--data {data} is on this machine: put it into an object store and give its address, "
            "or give an absolute path on the cluster",
        )
    take_along = {"--space": _take_space, "--teacher": _take_teacher}
    for index, word in enumerate(words[:-1], start=1):
        if word in take_along:
            words[index] = take_along[word](words[index], folder)
    if wait and "--gpus" in options and _WAIT[0] not in options:
        words += _WAIT
    if words[0] == "resume":
        run = words[1] if len(words) > 1 else ""
        _check_place(run, f"the run's name {_MUST_BE_SHARED}")
    else:
        results = options.get("--results", "")
        _check_place(results, f"--results {_MUST_BE_SHARED}")
        if "--name" not in options:
            words += ["--name", name]
        run = _below(results, options.get("--name", name))
    return Job(f"python -m dfsc_tune {shlex.join(words)}", run)


def _split(word: str) -> list[str]:
    """Splits an option from its value, if they are one word."""
    return word.split("=", 1) if word.startswith("--") and "=" in word else [word]


def _options(words: Sequence[str]) -> dict[str, str]:
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {option: value for option, value in pairs if option.startswith("--")}


def _check_place(place: str, otherwise: str) -> None:
    """Refuses a place that is neither an address nor an absolute path."""
    if is_remote(place):
        Store(place)
    elif not Path(place).is_absolute():
        raise UserError(otherwise)


def _take_space(value: str, folder: Path) -> str:
    """Returns a space's name on the cluster; copies a file and the teachers that it names."""
    source = Path(value)
    if source.suffix not in (".yaml", ".yml"):
        return value
    if not source.is_file():
        raise UserError(f"there is no search space {value}")
    root = compose_yaml(read_text(source), value)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"the search space {value} holds no settings")
    groups = [root, *(group for _, group in _entries(_child(root, "categories")))]
    fixed = [_child(group, "fixed") for group in groups]
    for photographs in (_child(_child(x, "train"), "penalty_images") for x in fixed):
        if _is_text(photographs) and not Path(photographs.value).is_absolute():
            raise UserError(
                f"the search space {value} names the folder {photographs.value} of this machine "
                "(train.penalty_images), which is not sent along: give an absolute path on the "
                "cluster's head"
            )
    # With YAML anchors, several groups may share one node.
    teachers = {id(x): x for x in (_child(_child(y, "model"), "teacher") for y in fixed)}
    for teacher in filter(_is_text, teachers.values()):
        teacher.value = _take_teacher(teacher.value, folder)
    # Written from nodes, everything else stays as it was; from a tree, 1e-4 would become a text.
    (folder / source.name).write_text(yaml.serialize(root), encoding="utf-8")
    return source.name


def _entries(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    return next((value for name, value in _entries(node) if name.value == key), None)


def _is_text(node: yaml.Node | None) -> TypeGuard[yaml.ScalarNode]:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str"


def _take_teacher(value: str, folder: Path) -> str:
    """Returns a teacher's name on the cluster; copies one that only this machine has."""
    if value == RANDOM:
        return value
    weights = find_teacher(value)
    if not is_path(value) and user_folder() not in weights.parents:
        return value
    # Folders by content: a space may name several files of one name.
    target = folder / "teachers" / file_sha256(weights)[:16]
    target.mkdir(parents=True, exist_ok=True)
    for path in (weights, card_path(weights)):
        if path.is_file():
            shutil.copy(path, target / path.name)
    return (target / weights.name).relative_to(folder).as_posix()


def _below(results: str, name: str) -> str:
    return str(Store(results) / name) if is_remote(results) else str(Path(results) / name)
