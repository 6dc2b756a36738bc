"""YAML text to plain values, each with its place in the text. Bounded: no document can blow up in memory or depth.

Scalars are read as YAML 1.2 has them, so that nobody is surprised: only ``true`` and ``false`` are booleans (``on``,
``no`` and ``yes`` are text), ``1:30`` and dates are text. A number with a leading zero is refused: YAML 1.1 reads it as
octal, YAML 1.2 as decimal.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from edgewright.spec.faults import Faults, Path
from edgewright.spec.pipeline import Position

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 50

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_OTHER_BASE = re.compile(r"0x[0-9a-fA-F]+\Z|0o[0-7]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+\Z")
_SPECIAL = {".inf": float("inf"), "-.inf": float("-inf"), "+.inf": float("inf"), ".nan": float("nan")}
_MERGE = "tag:yaml.org,2002:merge"


class TooLarge(Exception):
    """The document exceeds a limit."""


class _Builder:
    """Builds values and remembers where each one starts; one use each."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.count = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise TooLarge(f"more than {MAX_NODES:,} values (aliases count each time they are used)")
        if len(path) > MAX_DEPTH:
            raise TooLarge(f"nested more than {MAX_DEPTH} levels deep")
        self.faults.positions[path] = _position(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                self._merge(value_node, path, merged)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.at(_position(key_node), path, "a key must be text", code="key")
                continue
            key = key_node.value
            if key in found:
                first = self.faults.key_positions[(*path, key)]
                self.faults.at(
                    _position(key_node),
                    (*path, key),
                    f"duplicate key {key!r}",
                    allowed=f"it stands in line {first.line} already",
                    code="duplicate-key",
                )
                continue
            self.faults.key_positions[(*path, key)] = _position(key_node)
            found[key] = self.build(value_node, (*path, key))
        return {**merged, **found} if merged else found

    def _merge(self, node: yaml.Node, path: Path, into: dict[str, Any]) -> None:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                self.faults.at(_position(part), path, "<< takes a mapping or a list of mappings", code="merge")
                continue
            for key, value in self._mapping(part, path).items():
                into.setdefault(key, value)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        if node.style or node.tag.startswith("!"):  # quoted, a block, or tagged as something else
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.match(text):
            return int(text)
        if _OTHER_BASE.match(text):
            return int(text, 0)
        if _LEADING_ZERO.match(text):
            self.faults.add(
                path,
                f"{text} has a leading zero: is it octal, decimal or text?",
                allowed=f'write 0o{text.lstrip("+-0") or "0"}, {text.lstrip("0") or "0"} or "{text}"',
                code="leading-zero",
            )
            return text
        if _FLOAT.match(text):
            return float(text)
        return _SPECIAL.get(text.lower(), text)


def _position(node: yaml.Node) -> Position:
    start, end = node.start_mark, node.end_mark
    end_column = end.column + 1 if end.line == start.line else 0
    return Position(start.line + 1, start.column + 1, end_column)


def read(text: str, faults: Faults) -> Any:
    """Return a document's value; faults are collected, and ``None`` is returned where nothing could be read."""
    if len(text.encode()) > MAX_BYTES:
        faults.at(Position(1, 1), (), f"the document is larger than {MAX_BYTES:,} bytes", code="too-large")
        return None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        what = " ".join(part for part in (error.context, error.problem) if part)
        faults.at(place, (), f"not valid YAML: {what}", code="yaml-syntax")
        return None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = text[: getattr(error, "position", 0) or 0].count("\n") + 1
        faults.at(Position(line, 1), (), f"not valid YAML: {error}".splitlines()[0], code="yaml-syntax")
        return None
    if node is None:
        faults.at(Position(1, 1), (), "the document is empty", code="empty")
        return None
    try:
        return _Builder(faults).build(node, ())
    except (TooLarge, RecursionError) as error:
        faults.at(Position(1, 1), (), f"the document is refused: {error}", code="too-large")
        return None
