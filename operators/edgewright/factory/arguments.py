"""Arguments of classes that a document names by their dotted path: find the class, give texts their types."""

from __future__ import annotations

import datetime
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from edgewright.errors import ConfigError
from edgewright.spec.arguments import Invalid, duration, moment

_WORD = re.compile(r"[A-Za-z_]\w*")
_CALENDAR = re.compile(
    r"P(?=\d|T)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?\Z"
)


def dotted(path: str, where: str) -> Any:
    """Return what a dotted path names.

    Raises:
        ConfigError: there is no such thing.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path} cannot be imported: {error}", where=where,
                          hint="is its provider package installed?") from error  # fmt: skip


def coerced(target: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with texts turned into the times and durations that the target's signature asks for."""
    readers = _readers(target)
    if not readers:
        return dict(arguments)
    return {name: _read(readers.get(name), value) for name, value in arguments.items()}


def _read(reader: Callable[[Any], Any] | None, value: Any) -> Any:
    if reader is not None and isinstance(value, list):
        return [_read(reader, item) for item in value]
    if reader is None or not isinstance(value, str):
        return value
    try:
        return reader(value)
    except (Invalid, ValueError):
        return value  # the argument may also be text


@functools.cache
def _readers(target: Any) -> dict[str, Callable[[Any], Any]]:
    """Return what to read each argument with, by the words of its annotation (evaluating it could import anything)."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}
    found: dict[str, Callable[[Any], Any]] = {}
    for name, parameter in parameters.items():
        words = set(_WORD.findall(str(parameter.annotation)))
        if "DateTime" in words or ("datetime" in words and not words & {"timedelta", "date", "time"}):
            found[name] = _pendulum if "DateTime" in words else moment
        elif "date" in words:
            found[name] = datetime.date.fromisoformat
        elif words & {"timedelta", "Duration", "relativedelta"}:
            found[name] = _calendar if "relativedelta" in words else duration
    return found


def _calendar(value: str) -> Any:
    """Read a duration, also one of months and years, which have no fixed length."""
    try:
        return duration(value)
    except Invalid:
        if (match := _CALENDAR.match(value)) is None:
            raise
    from dateutil.relativedelta import relativedelta  # type: ignore[import-untyped]

    names = ("years", "months", "weeks", "days", "hours", "minutes", "seconds")
    return relativedelta(**{name: int(number or 0) for name, number in zip(names, match.groups(), strict=True)})


def _pendulum(value: Any) -> Any:
    import pendulum

    return pendulum.instance(moment(value))
