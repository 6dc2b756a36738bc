"""``params:``: JSON Schema fragments that become Airflow's trigger form, and typed values from text."""

from __future__ import annotations

import datetime
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from edgewright.spec.faults import Faults, Path, listing, near

_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
_PYTHON_TYPES = {"str": "string", "text": "string", "int": "integer", "float": "number", "bool": "boolean",
                 "list": "array", "dict": "object", "mapping": "object"}  # fmt: skip
#: What a param may say: what Airflow's form shows, and what its server checks.
_KEYS: dict[str, type | tuple[type, ...] | None] = {
    "type": (str, list),
    "default": None,
    "title": str,
    "description": str,
    "description_md": str,
    "section": str,
    "const": None,
    "enum": list,
    "examples": list,
    "values_display": dict,
    "format": str,
    "items": dict,
    "minimum": (int, float),
    "maximum": (int, float),
    "exclusiveMinimum": (int, float),
    "exclusiveMaximum": (int, float),
    "multipleOf": (int, float),
    "minLength": int,
    "maxLength": int,
    "pattern": str,
    "minItems": int,
    "maxItems": int,
    "uniqueItems": bool,
    "properties": dict,
    "required": list,
    "additionalProperties": (bool, dict),
    "oneOf": list,
    "anyOf": list,
    "allOf": list,
}
KEYS = tuple(_KEYS)
#: Formats that Airflow's form has a field for, and those that its server checks.
FORMATS = ("date", "date-time", "time", "duration", "multiline", "password", "email", "uri")
#: Keywords that need a whole JSON Schema validator.
_DEEP = frozenset({"properties", "required", "additionalProperties", "oneOf", "anyOf", "allOf", "uniqueItems", "items"})
_WORDS = {str: "text", list: "a list", dict: "a mapping", int: "a whole number", bool: "true or false"}


def read_params(params: Any, path: Path, faults: Faults) -> dict[str, dict[str, Any]]:
    """Return each param's schema with its default; a bare value is a default of its own type."""
    if params is None:
        return {}
    if not isinstance(params, dict):
        faults.add(path, "must be a mapping of names", code="type")
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
    before = len(faults.found)
    if (
        fragment
        and not _KEYS.keys() & fragment.keys()
        and not (len(fragment) == 1 and near(next(iter(fragment)), _KEYS))
    ):
        allowed = "a mapping as default is {type: object, default: {...}}"
        faults.add(path, "no keyword of JSON Schema is in it", allowed=allowed, code="unknown-key", key=True)
        return fragment
    for key, value in fragment.items():
        if key not in _KEYS:
            faults.unknown_key((*path, key), KEYS)
        elif (kinds := _KEYS[key]) is not None and not _has_type(value, kinds):
            words = _WORDS.get(kinds, "a number") if isinstance(kinds, type) else _words_of(kinds)
            faults.add((*path, key), f"{value!r}: must be {words}", code="type")
    _check_types(fragment.get("type", []), (*path, "type"), faults)
    _check_texts(fragment, path, faults)
    if len(faults.found) == before:
        _check_possible(fragment, path, faults)
    if len(faults.found) == before and not _DEEP.isdisjoint(fragment):
        _check_deep(fragment, path, faults)
    if len(faults.found) == before and "default" in fragment and (problem := misfit(fragment["default"], fragment)):
        faults.add((*path, "default"), f"the default {problem}", code="default")
    return fragment


def _check_types(types: Any, path: Path, faults: Faults) -> None:
    """Note names that are no types."""
    for kind in types if isinstance(types, list) else [types]:
        if isinstance(kind, str) and kind in _TYPES:
            continue
        if isinstance(kind, str) or isinstance(types, list):  # anything else was noted already
            near_by = near(_PYTHON_TYPES.get(kind, kind), _TYPES) if isinstance(kind, str) else None
            faults.add(path, f"{kind!r} is no type", allowed=f"types are: {listing(_TYPES)}",
                       suggestion=near_by, code="value")  # fmt: skip


def _has_type(value: Any, kinds: type | tuple[type, ...]) -> bool:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    return isinstance(value, kinds) and (bool in allowed or not isinstance(value, bool))


def _words_of(kinds: tuple[type, ...]) -> str:
    return "a number" if float in kinds else " or ".join(_WORDS[kind] for kind in kinds)


def _check_deep(fragment: dict[str, Any], path: Path, faults: Faults) -> None:
    """Note what is wrong inside of a fragment that only a whole validator understands."""
    import jsonschema  # type: ignore[import-untyped]

    for error in jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA).iter_errors(fragment):
        faults.add((*path, *error.absolute_path), f"not valid JSON Schema: {error.message[:200]}", code="type")
    _check_inner_keys(fragment, path, faults)


def _check_inner_keys(schema: Mapping[str, Any], path: Path, faults: Faults) -> None:
    """Note misspelt keywords of schemas inside of a schema; a validator ignores what it does not know."""
    inner = [((*path, key), schema.get(key)) for key in ("items", "additionalProperties")]
    for name, found in (schema.get("properties") or {}).items():
        inner.append(((*path, "properties", name), found))
    for place, found in inner:
        if isinstance(found, dict):
            for key in found:
                if key not in _KEYS and not key.startswith("$"):
                    faults.unknown_key((*place, key), KEYS)
            _check_inner_keys(found, place, faults)


def _check_texts(fragment: dict[str, Any], path: Path, faults: Faults) -> None:
    pattern, form = fragment.get("pattern"), fragment.get("format")
    if isinstance(pattern, str):
        try:
            re.compile(pattern)
        except re.error as error:
            faults.add((*path, "pattern"), f"{pattern!r} is no regular expression: {error}", code="value")
    if isinstance(form, str) and form not in FORMATS:
        faults.add(
            (*path, "format"),
            f"no such format: {form!r}",
            allowed=f"formats are: {listing(FORMATS)}",
            suggestion=near(form, FORMATS),
            code="value",
        )


_PAIRS = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"))


def _check_possible(fragment: dict[str, Any], path: Path, faults: Faults) -> None:
    """Note limits that no value can keep."""
    if fragment.get("type") == []:
        faults.add((*path, "type"), "there is no type", allowed=f"types are: {listing(_TYPES)}", code="value")
    for low, high in _PAIRS:
        if low in fragment and high in fragment and fragment[low] > fragment[high]:
            faults.add((*path, high), f"no value fits: {low} is {fragment[low]!r}", allowed=f"at least {low}",
                       code="combination")  # fmt: skip


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
    problem = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        problem = _number_misfit(value, schema)
    elif isinstance(value, (str, list)):
        problem = _length_misfit(value, schema) or (_text_misfit(value, schema) if isinstance(value, str) else None)
    return problem or (_deep_misfit(value, schema) if not _DEEP.isdisjoint(schema) else None)


_LIMITS: tuple[tuple[str, Callable[[float, float], bool], str], ...] = (
    ("minimum", operator.ge, "at least"),
    ("maximum", operator.le, "at most"),
    ("exclusiveMinimum", operator.gt, "more than"),
    ("exclusiveMaximum", operator.lt, "less than"),
    ("multipleOf", lambda value, step: step == 0 or _is_multiple(value, step), "a multiple of"),
)  # fmt: skip


def _is_multiple(value: float, step: float) -> bool:
    """Whether a number is a multiple of another one as Airflow's server works it out: 0.3 is none of 0.1."""
    if isinstance(step, float) or isinstance(value, float):
        return (value / step).is_integer()
    return value % step == 0


def _number_misfit(value: float, schema: Mapping[str, Any]) -> str | None:
    for key, fits, words in _LIMITS:
        if key in schema and not fits(value, schema[key]):
            return f"{value!r} must be {words} {schema[key]!r}"
    return None


def _length_misfit(value: str | list[Any], schema: Mapping[str, Any]) -> str | None:
    low, high = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
    if len(value) < schema.get(low, 0):
        return f"{value!r} is shorter than {schema[low]}"
    if len(value) > schema.get(high, len(value)):
        return f"{value!r} is longer than {schema[high]}"
    return None


def _matching(pattern: str) -> Callable[[str], Any]:
    """Return a reader of texts that match a pattern as a whole."""
    compiled = re.compile(pattern)

    def read(text: str) -> None:
        if compiled.fullmatch(text) is None:
            raise ValueError(text)

    return read


_N = r"\d+([.,]\d+)?"
#: What each format is, as Airflow's server takes it (jsonschema's format checkers), with an example of it.
_READERS: dict[str, tuple[tuple[Callable[[str], Any], ...], str]] = {
    "date": ((_matching(r"\d{4}-\d\d-\d\d"), datetime.date.fromisoformat), "2026-01-31"),
    "date-time": (
        (
            _matching(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"),
            lambda text: datetime.datetime.fromisoformat(text[:19]),
        ),
        "2026-01-31T06:00:00+01:00",
    ),
    "time": ((_matching(r"\d\d:\d\d:\d\d"), datetime.time.fromisoformat), "06:00:00"),
    "duration": (
        (_matching(rf"[-+]?P(?=.)({_N}Y)?({_N}M)?({_N}W)?({_N}D)?(T(?=\d)({_N}H)?({_N}M)?({_N}S)?)?"),),
        "PT5M",
    ),
    "email": ((_matching(r".*@.*"),), "name@example.org"),
}


def _text_misfit(value: str, schema: Mapping[str, Any]) -> str | None:
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{value!r} does not match {schema['pattern']!r}"
    readers, example = _READERS.get(schema.get("format", ""), ((), ""))
    try:
        for reader in readers:
            reader(value)
    except ValueError:
        return f"{value!r} is no {schema['format']} such as {example}"
    return None


def _deep_misfit(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Ask a whole validator; it is imported only for params that say more than what is checked above."""
    import jsonschema

    try:
        error = next(jsonschema.Draft202012Validator(dict(schema)).iter_errors(value), None)
    except Exception as fault:  # a schema may refer to what is not there, or hold a wrong pattern
        return f"cannot be checked: {type(fault).__name__}: {fault}".splitlines()[0]
    return None if error is None else f"does not fit: {error.message}"
