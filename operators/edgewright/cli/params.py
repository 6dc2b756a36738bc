"""Params given as text on a command line, read by the types that the pipeline declares."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgewright.cli.output import did_you_mean
from edgewright.errors import ConfigError

Schema = Mapping[str, Any]
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def defaults(declared: Mapping[str, Schema]) -> dict[str, Any]:
    """Return the params that have a default."""
    return {name: schema["default"] for name, schema in declared.items() if "default" in schema}


def read_params(declared: Mapping[str, Schema], given: Iterable[str]) -> dict[str, Any]:
    """Return the given ``name=text`` pairs as typed values, without the defaults.

    Raises:
        ConfigError: with every fault at once: no such param, not of its type, out of its limits.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for pair in given:
        name, equals, text = pair.partition("=")
        try:
            if not equals:
                raise ValueError(f"{pair}: write it as name=value")
            if name not in declared:
                known = ", ".join(sorted(declared)) or "none"
                raise ValueError(f"no such param: {name}{did_you_mean(name, declared)} (there are: {known})")
            values[name] = _parse(name, text, declared[name])
        except ValueError as error:
            faults.append(str(error))
    faults += check(declared, values)
    if faults:
        raise ConfigError("; ".join(faults), where="--param")
    return values


def complete(declared: Mapping[str, Schema], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's params: what was given over the defaults.

    Raises:
        ConfigError: an unknown one, a wrong value, or one that has no default was not given.
    """
    faults = [f"no such param: {name}{did_you_mean(name, declared)}" for name in given if name not in declared]
    faults += check(declared, given)
    values = {**defaults(declared), **given}
    faults += [
        f"param {name} has no default"
        for name, schema in declared.items()
        if name not in values and not _nullable(schema)
    ]
    if faults:
        raise ConfigError("; ".join(faults), where="params", hint="give it with --param name=value")
    return {name: values.get(name) for name in declared}


def check(declared: Mapping[str, Schema], values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with values by their JSON Schema, as sentences."""
    known = {name: value for name, value in values.items() if name in declared}
    if not known:
        return []
    # 0.1 s, so only when somebody gave a param
    import jsonschema  # type: ignore[import-untyped]

    faults = []
    for name, value in known.items():
        checker = jsonschema.Draft202012Validator(declared[name], format_checker=jsonschema.FormatChecker())
        faults += [f"param {name}: {error.message}" for error in checker.iter_errors(value)]
    return faults


def _types(schema: Schema) -> list[str]:
    declared = schema.get("type", [])
    return [declared] if isinstance(declared, str) else list(declared)


def _nullable(schema: Schema) -> bool:
    return "null" in _types(schema)


def _parse(name: str, text: str, schema: Schema) -> Any:
    """Return the first reading of the text that one of the declared types allows."""
    types = _types(schema)
    for kind in types:
        if kind == "null" and text in ("", "null"):
            return None
        try:
            return _READERS[kind](text)
        except (ValueError, KeyError):
            continue
    if types:
        raise ValueError(f"param {name}: {text!r} is not {_article(' or '.join(types))}")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeio" else f"a {words}"


def _integer(text: str) -> int:
    return int(text)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def _boolean(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(text)
    return word in _TRUE


def _array(text: str) -> list[Any]:
    value = json.loads(text)
    if not isinstance(value, list):
        raise ValueError(text)
    return value


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


_READERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}
