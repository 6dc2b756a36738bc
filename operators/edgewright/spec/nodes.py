"""YAML text to plain values, each with its place in the text. Bounded: no document can blow up in memory or depth.

Scalars are read as YAML 1.2 has them (only ``true`` and ``false`` are booleans; ``1:30`` and dates are text). What YAML
1.1 and YAML 1.2 read differently and nobody could guess is refused instead: an unquoted ``yes``, ``no``, ``on`` or
``off``, a number with a leading zero or with underscores.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import yaml

from edgewright.spec.faults import Faults, Path, position_of
from edgewright.spec.pipeline import Position

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
MAX_DEPTH = 50

_MERGE = "tag:yaml.org,2002:merge"
_Parser: Any = yaml.SafeLoader
with contextlib.suppress(ImportError):  # PyYAML can be built without libyaml
    from yaml.cyaml import CParser as _Parser  # type: ignore[attr-defined]


class Loader(_Parser):  # type: ignore[misc]
    """Composes nodes without working out YAML 1.1's tags: :class:`_Builder` reads values from their text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """Return a tag; only merge keys have one that counts."""
        return _MERGE if value == "<<" and implicit[0] else "?"

    def descend_resolver(self, parent: Any, index: Any) -> None:
        """Do nothing: no tag depends on its place."""

    def ascend_resolver(self) -> None:
        """Do nothing: no tag depends on its place."""


_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
#: Booleans of YAML 1.1 that are text in YAML 1.2.
_OLD_BOOLEANS = {
    word: value
    for value, names in (("true", ("yes", "on")), ("false", ("no", "off")))
    for name in names
    for word in (name, name.capitalize(), name.upper())
}
#: Keys whose own values are such words.
_WORD_KEYS = frozenset({"cache"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_OTHER_BASE = re.compile(r"0x[0-9a-fA-F]+\Z|0o[0-7]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_OLD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?|0b[01_]+|0x[0-9a-fA-F_]*_[0-9a-fA-F_]*)\Z")
_NO_NUMBER = re.compile(r"[-+]?\.inf\Z|\.nan\Z", re.IGNORECASE)
_TAG = re.compile(r"(?:&\S+\s+)?(!\S*)")
_ALLOWED_TAGS = frozenset({"!!str", "!!map", "!!seq"})
_LARGEST = 2**63
_SAFE_DEPTH = 500
#: What a parser's complaint usually means.
_HINTS = (
    ("cannot start any token", "a tab cannot indent YAML, use spaces; text that starts with @, ` or % is quoted"),
    ("mapping values are not allowed", 'text that holds ": " is quoted; look at the indentation too'),
    ("could not find expected ':'", "a key ends with a colon and a space; look at the indentation too"),
    ("did not find expected key", "look at the indentation, and for a quote that closes too early"),
    ("did not find expected '-' indicator", "the items of one list start in the same column"),
    ("did not find expected ',' or ']'", "a [ is not closed, or an item holds text that must be quoted"),
    ("did not find expected ',' or '}'", "a { is not closed, or a value holds text that must be quoted"),
    ("unexpected end of stream", "a quote, [ or { is not closed"),
    ("found undefined alias", "an alias *x comes after its anchor &x; text that starts with * is quoted"),
)


class TooLarge(Exception):
    """The document exceeds a limit."""


class _Builder:
    """Builds values and remembers where each one starts; one use each."""

    def __init__(self, text: str, faults: Faults) -> None:
        self.text = text
        self.tagged = "!" in text
        self.faults = faults
        self.positions = faults.positions
        self.count = 0
        self.merges = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        self.positions[path] = node
        if self.tagged and self._tag(node, path) == "!!str":
            return node.value
        if type(node) is yaml.ScalarNode:
            text: str = node.value
            return text if node.style else self._plain(text, path)
        self._check_size(len(path))
        if type(node) is yaml.SequenceNode:
            found = [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            self._check_size(len(path))
            return found
        return self._mapping(node, path)

    def _check_size(self, depth: int) -> None:
        if self.count > MAX_NODES:
            raise TooLarge(f"more than {MAX_NODES:,} values (aliases count each time they are used)")
        if depth > MAX_DEPTH:
            raise TooLarge(f"nested more than {MAX_DEPTH} levels deep")

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                self._merge(value_node, path, merged)
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            if type(key_node) is not yaml.ScalarNode:
                self.faults.at(position_of(key_node), path, "a key must be text", code="key")
                continue
            key = key_node.value
            place = (*path, key)
            if key in found:
                first = self.faults.position(place, key=True)
                self.faults.at(
                    position_of(key_node),
                    place,
                    f"duplicate key {key!r}",
                    allowed=f"it stands in line {first.line} already",
                    code="duplicate-key",
                )
                continue
            self.faults.key_positions[place] = key_node
            found[key] = self.build(value_node, place)
        return {**merged, **found} if merged else found

    def _merge(self, node: yaml.Node, path: Path, into: dict[str, Any]) -> None:
        """Read ``<<``: the first of several mappings wins, and a key of the mapping itself wins over all."""
        self.merges += 1
        self.count += 1
        self._check_size(len(path) + self.merges)  # a mapping may even merge itself
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in reversed(parts):
            if isinstance(part, yaml.MappingNode):
                into.update(self._mapping(part, path))
            else:
                self.faults.at(position_of(part), path, "<< takes a mapping or a list of mappings", code="merge")
        self.merges -= 1

    def _tag(self, node: yaml.Node, path: Path) -> str | None:
        """Return a node's explicit tag; what a tag would make of a value is not JSON, so most are refused."""
        match = _TAG.match(self.text, node.start_mark.index)
        if match is None:
            return None
        if match[1] not in _ALLOWED_TAGS:
            self.faults.add(
                path, f"tag {match[1]} is not allowed", allowed="leave it out; quote a value that is text", code="tag"
            )
        elif match[1] == "!!str" and type(node) is not yaml.ScalarNode:
            self.faults.add(path, "tag !!str belongs to text", code="tag")
            return None
        return match[1]

    def _plain(self, text: str, path: Path) -> Any:
        """Return the value of a scalar without quotes."""
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            if text in _OLD_BOOLEANS and path and path[-1] not in _WORD_KEYS:
                self.faults.add(
                    path,
                    f"{text} is a boolean in YAML 1.1 and text in YAML 1.2",
                    allowed=f'write {_OLD_BOOLEANS[text]} or "{text}"',
                    code="ambiguous",
                )
            return text
        return self._number(text, path)

    def _number(self, text: str, path: Path) -> Any:
        value: Any = text
        if _OLD_NUMBER.match(text):
            self._ambiguous(text, path)
        elif _INTEGER.match(text) or _OTHER_BASE.match(text):
            value = int(text, 0) if len(text) < 30 else _LARGEST
            if not -_LARGEST <= value < _LARGEST:
                self.faults.add(
                    path, f"{text[:40]} does not fit into 64 bits", allowed="quote it, if it is text", code="number"
                )
        elif _FLOAT.match(text):
            value = float(text)
            if value in (float("inf"), float("-inf")):
                self.faults.add(
                    path, f"{text[:40]} is too large for a number", allowed="quote it, if it is text", code="number"
                )
        elif _NO_NUMBER.match(text):
            self.faults.add(
                path, f"{text} cannot be kept as JSON", allowed="a finite number, null or quoted text", code="number"
            )
        return value

    def _ambiguous(self, text: str, path: Path) -> None:
        digits = text.replace("_", "")
        if re.fullmatch(r"[-+]?0[0-9]+", digits):
            self.faults.add(
                path,
                f"{text} has a leading zero: is it octal, decimal or text?",
                allowed=f'write 0o{digits.lstrip("+-0") or "0"}, {digits.lstrip("+-0") or "0"} or "{text}"',
                code="ambiguous",
            )
            return
        number = str(int(digits, 2)) if digits.startswith("0b") else digits
        self.faults.add(
            path,
            f"{text} is a number in YAML 1.1 and text in YAML 1.2",
            allowed=f'write {number} or "{text}"',
            code="ambiguous",
        )


def read(text: str, faults: Faults) -> Any:
    """Return a document's value; faults are collected, and ``None`` is returned where nothing could be read."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_BYTES:
        faults.at(Position(1, 1), (), f"the document is larger than {MAX_BYTES:,} characters", code="too-large")
        return None
    try:
        _check_depth(text)
        node = _compose(text, faults)
        return None if node is None else _Builder(text, faults).build(node, ())
    except TooLarge as error:
        faults.at(Position(1, 1), (), f"the document is refused: {error}", code="too-large")
        return None


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the document is composed: the C composer recurses, and would end the process.

    A document nests at most as deep as it opens brackets and as its lines are long, so most need no second look.
    """
    openings = text.count("[") + text.count("{")
    if openings < _SAFE_DEPTH and max(map(len, text.splitlines()), default=0) < _SAFE_DEPTH:
        return
    depth = 0
    try:
        for event in yaml.parse(text, Loader=Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise TooLarge(f"nested more than {MAX_DEPTH} levels deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except (yaml.YAMLError, ValueError):
        return  # the composer comes to the same place, and says what is wrong


def _compose(text: str, faults: Faults) -> yaml.Node | None:
    try:
        node = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        what = " ".join(part for part in (error.context, error.problem) if part)
        if "expected a single document" in what:
            faults.at(
                place, (), "a second document starts here", allowed="one pipeline a file; split it", code="yaml-syntax"
            )
            return None
        hint = next((hint for part, hint in _HINTS if part in what), None)
        faults.at(place, (), f"not valid YAML: {what}", allowed=hint, code="yaml-syntax")
        return None
    except (yaml.YAMLError, ValueError) as error:
        before = text[: getattr(error, "position", 0) or 0]
        reason = getattr(error, "reason", None) or str(error).splitlines()[0]
        place = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        faults.at(place, (), f"not valid YAML: {reason}", code="yaml-syntax")
        return None
    if node is None:
        faults.at(Position(1, 1), (), "the document is empty", allowed="it starts with $schema: and dag_id:",
                  code="empty")  # fmt: skip
    return node
