"""``args:`` of a task, checked against the signatures of the user's functions; light to import."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from edgewright.errors import ConfigError


def check_arguments(function: Callable[..., Any], args: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the arguments as the function's annotations want them.

    An integer may stand for a float; nothing else is converted that JSON does not force (lists to tuples, texts to
    paths, dates and enumerations).

    Args:
        function: The user's function; its first parameter is the data.
        args: ``args:`` of the task.
        folder: The pipeline's folder, for messages.

    Raises:
        ConfigError: with every fault at once, and the function's file and line.
    """
    where = where_of(function, folder)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return dict(args)
    parameters = list(signature.parameters.values())
    if not parameters:
        raise ConfigError(f"{name_of(function)}() takes no data", where=where, hint="its first parameter is the data")
    accepted = {p.name: p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    faults = [] if takes_any else [_unknown(name, accepted) for name in args if name not in accepted]
    needed = [p.name for p in accepted.values() if p.default is p.empty and p.name not in args]
    faults += [f"args: {name} is missing" for name in needed]
    hints = _annotations(function)
    checked: dict[str, Any] = {}
    for name, value in args.items():
        checked[name], fault = _convert(name, value, hints.get(name)) if name in accepted else (value, None)
        faults += [fault] if fault else []
    if faults:
        shown = ", ".join(map(_show, accepted.values())) or "no arguments"
        hint = f"{name_of(function)} takes: {shown}"
        if any(" not '" in fault for fault in faults):
            hint += "; a template with anything beside {{ params.X }} gives text"
        raise ConfigError("; ".join(faults), where=where, hint=hint)
    return checked


def _show(parameter: inspect.Parameter) -> str:
    kind = parameter.annotation
    text = parameter.name
    if kind is not parameter.empty:
        text += f": {kind if isinstance(kind, str) else getattr(kind, '__name__', kind)}"
    return text if parameter.default is parameter.empty else f"{text} = {parameter.default!r}"


def name_of(function: Callable[..., Any]) -> str:
    """Return a function's name."""
    return getattr(function, "__name__", type(function).__name__)


def where_of(function: Callable[..., Any], folder: Path) -> str:
    """Return a function's file and line."""
    try:
        file = Path(inspect.getsourcefile(function) or "").resolve()
        line = inspect.getsourcelines(function)[1]
    except (TypeError, OSError):
        return name_of(function)
    shown = file.relative_to(folder.resolve()) if file.is_relative_to(folder.resolve()) else file.name
    return f"{shown}:{line}"


def _unknown(name: str, accepted: Mapping[str, inspect.Parameter]) -> str:
    near = get_close_matches(name, accepted, n=1)
    return f"args: no such argument: {name}" + (f'; did you mean "{near[0]}"?' if near else "")


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations that can be evaluated; one that only a type checker sees must not hide the others."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation is any expression
        names = getattr(function, "__globals__", {})
        found: dict[str, Any] = {}
        for name, annotation in getattr(function, "__annotations__", {}).items():
            try:
                holder = type("holder", (), {"__annotations__": {name: annotation}})
                found[name] = typing.get_type_hints(holder, names)[name]
            except Exception:  # noqa: S112
                continue
        return found


def _convert(name: str, value: Any, annotation: Any) -> tuple[Any, str | None]:
    if annotation is None or annotation is Any:
        return value, None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        return adapter.validate_json(json.dumps(value), strict=True), None
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeError):
        return value, None  # a type that no schema knows, such as an array's
    except ValidationError as error:
        wanted = getattr(annotation, "__name__", str(annotation))
        reason = error.errors()[0]["msg"]
        return value, f"args: {name} must be {wanted}, not {value!r} ({reason})"


def check_shares(
    functions: list[Callable[..., Any]], skipped: list[int], args: Mapping[str, Any], folder: Path
) -> list[dict[str, Any]]:
    """Return each function's share of ``args``: those that it names. What none of them names is a fault.

    Args:
        functions: The user's functions.
        skipped: How many first parameters of each are not arguments: the frame, or the frame and the state.
        args: ``args:`` of the task.
        folder: The pipeline's folder, for messages.

    Raises:
        ConfigError: as :func:`check_arguments`.
    """
    shares: list[dict[str, Any]] = []
    named = [_named(function, skip) for function, skip in zip(functions, skipped, strict=True)]
    for index, (function, names) in enumerate(zip(functions, named, strict=True)):
        others = [other for place, other in enumerate(named) if place != index]
        share = {
            key: value
            for key, value in args.items()
            if names is None or key in names or not any(other is None or key in other for other in others)
        }
        shape: Any = function if skipped[index] == 1 else _WithoutState(function)
        shares.append(check_arguments(shape, share, folder))
    return shares


def _named(function: Callable[..., Any], skip: int) -> set[str] | None:
    """Return the names that a function takes after its first parameters; ``None`` where it takes any."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters[skip:]}


class _WithoutState:
    """How a function looks to whoever gives it its arguments but not the state, its second parameter."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__name__ = getattr(function, "__name__", "entry")
        self.__annotations__ = dict(getattr(function, "__annotations__", {}))
        self.__globals__ = getattr(function, "__globals__", {})
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        self.__signature__ = signature.replace(parameters=parameters[:1] + parameters[2:])

    def __call__(self) -> None:
        """Never called; only described."""
