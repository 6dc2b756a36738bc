"""``params:``: JSON Schema fragments that become Airflow's trigger form, and typed values from text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgewright.spec.faults import Faults, Path, listing, near

_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
#: What a param may say: what Airflow's form shows, and what its server checks.
KEYS = (
    "type",
    "default",
    "title",
    "description",
    "description_md",
    "section",
    "const",
    "enum",
    "examples",
    "values_display",
    "format",
    "items",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "properties",
    "required",
    "additionalProperties",
    "oneOf",
    "anyOf",
    "allOf",
)


def read_params(params: Any, path: Path, faults: Faults) -> dict[str, dict[str, Any]]:
    """Return each param's schema with its default; a bare value is a default of its own type."""
    if params is None:
        return {}
    if not isinstance(params, dict):
        faults.add(path, "params: is a mapping of names", code="type")
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, value in params.items():
        place = (*path, name)
        if not name.isidentifier():
            faults.add(
                place, f"{name!r} is no name for a param", allowed="letters, digits and _", code="value", key=True
            )
        found[name] = _fragment(value, place, faults) if isinstance(value, dict) else _bare(value)
    return found


def _bare(value: Any) -> dict[str, Any]:
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return {"type": name, "default": value}
    return {"default": value}


def _fragment(fragment: dict[str, Any], path: Path, faults: Faults) -> dict[str, Any]:
    for key in fragment:
        if key not in KEYS:
            faults.unknown_key((*path, key), KEYS)
    types = fragment.get("type", [])
    for kind in types if isinstance(types, list) else [types]:
        if kind not in _TYPES:
            faults.add(
                (*path, "type"),
                f"{kind!r} is no type",
                allowed=f"types are: {listing(_TYPES)}",
                suggestion=near(kind, _TYPES),
                code="value",
            )
            return fragment
    if "default" in fragment and (problem := misfit(fragment["default"], fragment)):
        faults.add((*path, "default"), f"the default {problem}", code="default")
    return fragment


def _is(value: Any, kind: str) -> bool:
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    classes = {"number": (int, float), "string": str, "array": list, "object": dict}
    return isinstance(value, classes[kind])  # type: ignore[arg-type]


def misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Return why a value does not fit a param's schema, in words, or ``None`` if it fits."""
    types = schema.get("type")
    names = types if isinstance(types, list) else [types] if types else []
    if names and not any(_is(value, name) for name in names):
        return f"{value!r} is not of type {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is not one of {listing(map(str, schema['enum']))}"
    if "const" in schema and value != schema["const"]:
        return f"{value!r} is not {schema['const']!r}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number_misfit(value, schema)
    if isinstance(value, (str, list)):
        return _length_misfit(value, schema)
    return None


def _number_misfit(value: float, schema: Mapping[str, Any]) -> str | None:
    limits = (
        ("minimum", lambda limit: value >= limit, "at least"),
        ("maximum", lambda limit: value <= limit, "at most"),
        ("exclusiveMinimum", lambda limit: value > limit, "more than"),
        ("exclusiveMaximum", lambda limit: value < limit, "less than"),
    )
    for key, fits, words in limits:
        if key in schema and not fits(schema[key]):
            return f"{value!r} must be {words} {schema[key]!r}"
    return None


def _length_misfit(value: str | list[Any], schema: Mapping[str, Any]) -> str | None:
    low, high = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
    if len(value) < schema.get(low, 0):
        return f"{value!r} is shorter than {schema[low]}"
    if len(value) > schema.get(high, len(value)):
        return f"{value!r} is longer than {schema[high]}"
    return None


def from_text(text: str, schema: Mapping[str, Any]) -> Any:
    """Return a param's typed value from a command line's text.

    Raises:
        ValueError: the text does not fit; says why.
    """
    types = schema.get("type")
    names = types if isinstance(types, list) else [types] if types else []
    value: Any = text
    if "string" not in names:
        try:
            value = json.loads(text)
        except ValueError:
            value = text
    elif "null" in names and text in ("", "null"):
        value = None
    if (problem := misfit(value, schema)) is not None:
        raise ValueError(problem)
    return value
