"""``with:`` of a step, held against the step's typed configuration; every fault at its own place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.gates import parse_gate
from edgewright.spec.pipeline import Constant, Reference, Template
from edgewright.spec.steps import StepSpec
from edgewright.spec.steps.base import accepted_kinds

_WORDS = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}


def check_with(spec: StepSpec, config: dict[str, Any], path: Path, faults: Faults) -> None:
    """Note every fault of a step's ``with:``.

    Args:
        spec: The step.
        config: Parsed ``with:``; markers stand for values that only a run knows, so they fit everywhere.
        path: Place of the ``with:``.
        faults: Where to note.
    """
    try:
        spec.config.model_validate(_plain(config), strict=True)
    except ValidationError as error:
        seen: set[Path] = set()
        for fault in error.errors(include_url=False):
            if isinstance(fault["input"], (Reference, Template)) and fault["type"] != "extra_forbidden":
                continue
            place = _document_path(config, fault["loc"])
            if place not in seen and place != ("gates",):
                seen.add(place)
                _note(spec, config, fault, path, place, faults)
    _check_gates(spec, config, path, faults)


def _plain(value: Any) -> Any:
    """Return a value with constants unpacked; references and templates stay as objects."""
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _document_path(config: Any, loc: tuple[int | str, ...]) -> Path:
    """Return the part of a pydantic location that exists in the document (it also names union members)."""
    place: list[int | str] = []
    value = config
    for part in loc:
        if (isinstance(value, dict) and isinstance(part, str) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value = value[part]
        else:
            if isinstance(value, dict) and part == loc[-1]:
                place.append(part)
            break
        place.append(part)
    return tuple(place)


def _note(spec: StepSpec, config: Any, fault: Any, path: Path, place: Path, faults: Faults) -> None:
    kind, value = fault["type"], fault["input"]
    full = (*path, *place)
    if kind == "extra_forbidden":
        faults.unknown_key(full, _fields_at(spec.config, place[:-1]))
    elif kind == "missing":
        faults.add(
            (*path, *place[:-1]),
            f"{place[-1] if place else fault['loc'][-1]} is required",
            allowed=_description(spec.config, place),
            code="missing-key",
        )
    elif kind in ("model_type", "model_attributes_type") and _takes_artifact(spec.config, place):
        faults.add(
            full, f"{_shown(value)} is no reference to another task", allowed="write {$x: TASK}", code="reference"
        )
    elif kind == "literal_error":
        expected = fault["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        faults.add(
            full,
            f"{_shown(value)} is not allowed here",
            allowed=f"allowed are: {expected}",
            suggestion=near(value, expected.split(", ")),
            code="value",
        )
    else:
        words = _WORDS.get(kind) or fault["msg"].removeprefix("Value error, ").replace("Input should", "must")
        faults.add(full, f"{_shown(value)}: {words}", allowed=_description(spec.config, place), code="value")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _model_at(model: type[BaseModel], place: Path) -> type[BaseModel] | None:
    """Return the configuration model at a place, if one is there."""
    for part in place:
        info = next((i for n, i in model.model_fields.items() if part in (n, i.alias)), None) if model else None
        if isinstance(part, int):
            continue
        found = _models_in(info.annotation) if info is not None else []
        if not found:
            return None
        model = found[0]
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]


def _fields_at(model: type[BaseModel], place: Path) -> list[str]:
    found = _model_at(model, tuple(part for part in place if isinstance(part, str)))
    if found is None and place:
        found = _model_at(model, place[:1])
    return [info.alias or name for name, info in found.model_fields.items()] if found else []


def _description(model: type[BaseModel], place: Path) -> str | None:
    parent = _model_at(model, place[:-1]) if place else None
    if parent is None:
        return None
    for name, info in parent.model_fields.items():
        if place[-1] in (name, info.alias):
            return info.description
    return None


def _takes_artifact(model: type[BaseModel], place: Path) -> bool:
    return bool(place) and place[0] in accepted_kinds(model)


def _check_gates(spec: StepSpec, config: Mapping[str, Any], path: Path, faults: Faults) -> None:
    gates = config.get("gates")
    if not isinstance(gates, dict):
        if gates is not None:
            faults.add((*path, "gates"), "gates: is a mapping", allowed='such as {accuracy: ">= 0.75"}', code="type")
        return
    for metric, limit in gates.items():
        try:
            parse_gate(metric, _plain(limit) if not isinstance(limit, Template) else ">= 0")
        except ValueError as error:
            faults.add((*path, "gates", metric), str(error), code="gate")
        if metric not in spec.metrics:
            faults.add(
                (*path, "gates", metric),
                f"{spec.name} does not measure {metric!r}",
                allowed=f"gates may name: {listing(spec.metrics, 40)}",
                suggestion=near(metric, spec.metrics),
                code="unknown-metric",
                key=True,
            )
