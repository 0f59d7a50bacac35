"""Reads, validates and writes settings as YAML; a broken rule is named with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dfsc_tune.errors import UserError
from dfsc_tune.storage.documents import BoundedLoader, parse_yaml, read_text


class RuleError(ValueError):
    """A rule of a group's own check, broken by a value deeper in the tree."""

    def __init__(self, path: tuple[int | str, ...], rule: str, value: object = None) -> None:
        super().__init__(rule)
        self.path = path
        self.value = value

    @classmethod
    def first_of(
        cls, error: ValidationError, path: tuple[int | str, ...], with_loc: bool = True
    ) -> RuleError:
        """Returns the first broken rule of another group, placed under `path`."""
        first = error.errors()[0]
        loc = first["loc"] if with_loc else ()
        return cls((*path, *loc), _rule(first), _value(first))


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys and values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def load(path: Path, kind: type[SettingsT]) -> SettingsT:
    """Reads one YAML file into settings.

    Raises:
        UserError: the file cannot be read, is not YAML, or breaks a rule; names file, line and
            dotted path.
    """
    return loads(read_text(path), kind, source=str(path))


def loads(text: str, kind: type[SettingsT], source: str) -> SettingsT:
    """Like `load`, from text; `source` names it in errors."""
    tree, root = parse_yaml(text, source, _Loader)
    if not isinstance(tree, dict):
        raise UserError(f"{source}: expected settings as 'key: value', found {_shown(tree)}")
    return validate(kind, tree, source, root)


def validate(
    kind: type[SettingsT],
    tree: Mapping[str, Any],
    source: str,
    root: yaml.Node | None = None,
) -> SettingsT:
    """Validates a tree of plain values; UserError names the first broken rule, place and value."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        # If a key is missing, a mistyped one is most often the reason.
        first, *others = sorted(error.errors(), key=lambda x: x["type"] != "extra_forbidden")
        cause = first.get("ctx", {}).get("error")
        deeper = cause.path if isinstance(cause, RuleError) else ()
        value = cause.value if isinstance(cause, RuleError) else _value(first)
        missing = first["type"] == "missing"
        path, node = _locate((*first["loc"], *deeper), root, missing)
        where = f"{source}:{node.start_mark.line + 1}" if node else source
        got = "" if value is None else f" (got {_shown(value)})"
        more = f" (and {len(others)} more)" if others else ""
        place = f"{path}: " if path else ""
        raise UserError(f"{where}: {place}{_rule(first)}{got}{more}") from error


def spelled_out(settings: SettingsT) -> SettingsT:
    """Returns the settings with each default as if it had been given."""
    return type(settings).model_validate(settings.model_dump())


def dump(settings: BaseModel, header: str = "") -> str:
    """Returns the settings as YAML for `load`, with `header` as comment lines above."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    tree = settings.model_dump(mode="json")
    body = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return comment + body


def _rule(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return message.replace("Tuple should have", "must have").replace(" after validation", "")


def _value(error: ErrorDetails) -> object:
    """Returns the refused value if showing it helps, else None."""
    plain = error["type"] not in ("missing", "extra_forbidden")
    return error["input"] if plain and not isinstance(error["input"], dict | BaseModel) else None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _locate(
    steps: tuple[int | str, ...], root: yaml.Node | None, missing: bool
) -> tuple[str, yaml.Node | None]:
    """Returns the dotted path of a broken rule and the YAML node nearest to it.

    Steps that do not appear in the file (a union's chosen branch) are left out of the path.
    """
    if root is None:
        return ".".join(map(str, steps)), None
    path: list[str] = []
    node = root
    for step in steps:
        child = _child(node, step)
        if child is not None:
            key, node = child
            path.append(str(step))
            if step == steps[-1]:
                node = key
        elif missing and step == steps[-1]:
            path.append(str(step))
    return ".".join(path), node


def _child(node: yaml.Node, step: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


class _Loader(BoundedLoader):
    """Safe YAML that reads 1e-4 as a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a single value", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes whatever `_Loader` would not read as text: a category named 10E5."""


# YAML 1.1 asks for a dot before an exponent; people write 1e-4.
_EXPONENT = re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
