"""Reads YAML and JSON that anyone may have written: no size, depth or alias makes it hang or break.

Every such file is read here. What cannot be read is a UserError that names file, line and reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from dfsc_tune.errors import UserError, first_line

MOST_BYTES = 16_000_000
MOST_LEVELS = 40
"""Lists and mappings within one another; what we write has about eight."""
MOST_VALUES = 1_000_000
"""In a YAML file, each alias counted as all that it stands for."""
_TOO_DEEP = f"more than {MOST_LEVELS} levels of lists or mappings within one another"
# What Python's constructors raise on a value such as 2001-99-99 or !!bool maybe.
_NO_VALUE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class BoundedLoader(yaml.SafeLoader):
    """Safe YAML that refuses documents whose values, once read, would be too deep or too many."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0
        # By a node's id: how many values it stands for, and how many levels.
        self._extent: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Composes a node; an alias is the node that it stands for."""
        self._level += 1
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._level > MOST_LEVELS:
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=mark)
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        assert node is not None, "an event that begins a node was there"
        if is_alias and id(node) not in self._extent:
            problem = "an alias stands for what it is a part of"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        if not is_alias:
            self._extent[id(node)] = self._measured(node)
        self._level -= 1
        return node

    def _measured(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            if not _is_text(node.value):
                problem = "a character that no text can hold"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
            return 1, 0
        children = [self._extent[id(child)] for child in _children(node)]
        num_values = 1 + sum(count for count, _ in children)
        num_levels = 1 + max((levels for _, levels in children), default=0)
        if num_levels > MOST_LEVELS or num_values > MOST_VALUES:
            too_many = f"aliases that stand for more than {MOST_VALUES} values"
            problem = _TOO_DEEP if num_levels > MOST_LEVELS else too_many
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return num_values, num_levels


def _children(node: yaml.Node) -> Sequence[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    children: Sequence[yaml.Node] = node.value
    return children


def _is_text(text: str) -> bool:
    """True if a text can be written to a file and be used as a file's name."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_no_pipe(path: Path) -> None:
    """Refuses a named pipe, which keeps its reader waiting; a shell's own (`<(…)`) has no name."""
    if Path(os.path.realpath(path)).is_fifo():
        raise UserError(f"cannot read {path}: it is a named pipe, not a file")


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it cannot be read, is no text, or is larger than any file of its kind.
    """
    check_no_pipe(path)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 text ({error})") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"cannot read {path}: it has more than {MOST_BYTES // 1_000_000} MB")
    return text


def read_yaml(path: Path) -> Any:
    """The values in a YAML file.

    Raises:
        UserError: it cannot be read, or is not YAML.
    """
    tree, _ = parse_yaml(read_text(path), str(path))
    return tree


def parse_yaml(
    text: str, source: str, loader: type[BoundedLoader] = BoundedLoader
) -> tuple[Any, yaml.Node | None]:
    """The values in a YAML text, and its root node, whose marks know the lines.

    Args:
        text: one document, or none.
        source: names it in errors.
        loader: decides what is a number and what else is refused.

    Raises:
        UserError: it is not YAML.
    """
    try:
        reader = loader(_checked_size(text, source))
        root = reader.get_single_node()
        return None if root is None else reader.construct_document(root), root
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from error
    except _NO_VALUE as error:
        raise UserError(f"{source}: not valid YAML: {first_line(error)}") from error


def compose_yaml(text: str, source: str) -> yaml.Node | None:
    """The root node of a YAML text, as it was written.

    Args:
        text: one document, or none.
        source: names it in errors.

    Raises:
        UserError: it is not YAML.
    """
    try:
        return BoundedLoader(_checked_size(text, source)).get_single_node()
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from error


def read_json(path: Path) -> Any:
    """The values in a JSON file.

    Raises:
        UserError: it cannot be read, or is not JSON.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str | bytes, source: str) -> Any:
    """The values in a JSON text.

    Args:
        text: one value.
        source: names it in errors.

    Raises:
        UserError: it is not JSON.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        tree = json.loads(_checked_size(text, source))
    except json.JSONDecodeError as error:
        raise UserError(f"{source}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{source}: not valid JSON: {_TOO_DEEP}") from error
    except ValueError as error:
        raise UserError(f"{source}: not valid JSON: {first_line(error)}") from error
    # Only where there may be something: a ledger has many lines.
    if text.count("[") + text.count("{") > MOST_LEVELS and _levels(tree) > MOST_LEVELS:
        raise UserError(f"{source}: not valid JSON: {_TOO_DEEP}")
    if "\\u" in text and not all(map(_is_text, _texts(tree))):
        raise UserError(f"{source}: not valid JSON: a character that no text can hold")
    return tree


def _levels(tree: Any) -> int:
    """Counts the depth of nested lists and mappings, up to one more than allowed."""
    level, found = 0, [tree]
    while level <= MOST_LEVELS and (groups := [x for x in found if isinstance(x, dict | list)]):
        found = [part for group in groups for part in _parts(group)]
        level += 1
    return level


def _texts(tree: Any) -> Iterator[str]:
    """All keys and texts of a tree that is not too deep."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for part in (*(tree if isinstance(tree, dict) else ()), *_parts(tree)):
            yield from _texts(part)


def _parts(group: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return group.values() if isinstance(group, dict) else group


def _checked_size(text: str, source: str) -> str:
    if len(text) > MOST_BYTES:
        raise UserError(f"cannot read {source}: it has more than {MOST_BYTES // 1_000_000} MB")
    return text


def _not_yaml(error: yaml.YAMLError, source: str) -> UserError:
    mark = getattr(error, "problem_mark", None)
    where = f"{source}:{mark.line + 1}" if mark else source
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return UserError(f"{where}: not valid YAML: {problem}")
