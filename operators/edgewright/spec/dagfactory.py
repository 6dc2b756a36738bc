"""dag-factory's YAML as values that know their lines, and what of them can be said in our language."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import yaml

from edgewright.errors import ConfigError

_DEEPEST = 50
_UNITS = (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_VARIABLE = re.compile(r"\$(\{[A-Za-z_]\w*\}|[A-Z_][A-Z0-9_]*\b)")
_TIMEDELTA = ("days", "seconds", "microseconds", "milliseconds", "minutes", "hours", "weeks")


class Unsayable(ValueError):
    """A value cannot be written in our language; the text says why."""


class Mapped(dict[str, Any]):
    """A mapping that knows the lines of its keys.

    Attributes:
        lines: Line of each key, counted from 1.
        place: Line where the mapping starts.
    """

    def __init__(
        self, values: dict[str, Any] | None = None, lines: dict[str, int] | None = None, place: int = 0
    ) -> None:
        super().__init__(values or {})
        self.lines = lines or {}
        self.place = place

    def line(self, key: str) -> int:
        """Return the line of a key, or of the mapping."""
        return self.lines.get(key, self.place)

    def without(self, key: str) -> Mapped:
        """Return a copy without a key."""
        return Mapped({k: v for k, v in self.items() if k != key}, self.lines, self.place)


class Foreign:
    """A value with a tag of Python's, such as ``!!python/name:module.function``."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def read(text: str, file: Path, *, foreign: bool = False) -> Mapped:
    """Return a document.

    Args:
        text: It.
        file: For messages.
        foreign: It is not the document that losses are shown in, so its lines are left out.

    Raises:
        ConfigError: it is not YAML, or not a mapping.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else _value(loader, node, 0 if foreign else 1, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        raise ConfigError(f"not valid YAML: {error.problem}", where=where) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {error}", where=str(file)) from error
    finally:
        loader.dispose()
    if not isinstance(value, Mapped):
        raise ConfigError("a dag-factory document is a mapping of Dags", where=str(file))
    return value


def _value(loader: yaml.SafeLoader, node: yaml.Node, first: int, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        values, lines = {}, {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            values[key] = _value(loader, value_node, first, depth + 1)
            lines[key] = key_node.start_mark.line + 1 if first else 0
        return Mapped(values, lines, node.start_mark.line + 1 if first else 0)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, first, depth + 1) for item in node.value]
    if node.tag not in loader.yaml_constructors:
        return Foreign(f"{node.tag.replace('tag:yaml.org,2002:', '!!')} {node.value}".strip())
    value = loader.construct_object(node)
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else value


def merge(own: Mapped, common: Mapped) -> Mapped:
    """Return a mapping over what is common to several; mappings inside are merged too, as dag-factory does."""
    values, lines = dict(own), dict(own.lines)
    for key, value in common.items():
        mine = own.get(key)
        if key not in own:
            values[key], lines[key] = value, common.line(key)
        elif isinstance(mine, Mapped) and isinstance(value, Mapped):
            values[key] = merge(mine, value)
    return Mapped(values, lines, own.place)


def normal(value: Any) -> list[Any]:
    """Return a list, an empty one for nothing, one item for a text."""
    return value if isinstance(value, list) else [] if value is None else [value]


def sayable(value: Any, *, markers: bool = False, variables: bool = False) -> Any:
    """Return a value in our language.

    Args:
        value: It.
        markers: It stands in ``with:``, where a template is marked ``$t``.
        variables: ``$NAME`` in it is somebody else's to replace.

    Raises:
        Unsayable: there is no way to write it.
    """
    if isinstance(value, Foreign):
        raise Unsayable(f"{value} is a Python object")
    if isinstance(value, str):
        return _text(value, markers=markers, variables=variables)
    if isinstance(value, list):
        return [sayable(item, markers=markers, variables=variables) for item in value]
    if not isinstance(value, dict):
        return value
    if "__type__" in value:
        return _typed(value)
    if "__join__" in value:
        return _text(
            "".join(str(sayable(item)) for item in normal(value["__join__"])), markers=markers, variables=variables
        )
    if "__and__" in value or "__or__" in value:
        raise Unsayable("conditions on assets cannot be written")
    plain = {str(key): sayable(item, markers=markers, variables=variables) for key, item in value.items()}
    return {"$const": plain} if markers and any(key.startswith("$") for key in plain) else plain


def _text(text: str, *, markers: bool, variables: bool) -> Any:
    if not variables and (match := _VARIABLE.search(text)):
        raise Unsayable(f"{match[0]}: environment variables are not read in a document")
    return {"$t": text} if markers and ("{{" in text or "{%" in text) else text


def _typed(value: dict[str, Any]) -> Any:
    """Return a ``__type__`` that our language has a word for: durations and times."""
    name = str(value["__type__"]).rpartition(".")[2]
    given = {key: item for key, item in value.items() if key not in ("__type__", "__args__")}
    args = normal(value.get("__args__"))
    try:
        if name == "timedelta":
            return duration_text(datetime.timedelta(*args, **given))
        if name == "datetime":
            given.pop("tzinfo", None)
            return datetime.datetime(*args, **given).isoformat()
    except (TypeError, ValueError, OverflowError) as error:
        raise Unsayable(f"{value['__type__']} does not take this: {error}") from error
    if value["__type__"] == "builtins.list":
        return [sayable(item) for item in normal(value.get("items"))]
    raise Unsayable(f"{value['__type__']} is a Python object")


def duration_text(delta: datetime.timedelta) -> str | float:
    """Return a duration as ``1h30m``, or as seconds where it is no whole number of them."""
    seconds = delta.total_seconds()
    if seconds != int(seconds) or seconds <= 0:
        return seconds
    parts, rest = [], int(seconds)
    for unit, size in _UNITS:
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)
