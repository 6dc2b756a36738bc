"""``with:`` of a step, held against the step's typed configuration; every fault at its own place."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from edgewright.artifacts.ages import AGE_PATTERN
from edgewright.artifacts.refs import ArtifactRef
from edgewright.spec.arguments import STEP_ARGUMENTS, TASK_ARGUMENTS
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.gates import parse_gate
from edgewright.spec.graph import accepted_kinds
from edgewright.spec.markers import encode, pure_item, pure_param
from edgewright.spec.pipeline import Constant, Reference, Template
from edgewright.spec.steps import StepSpec, publish, score
from edgewright.spec.steps import base as steps_base

_TYPES = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


_BESIDE_WITH = frozenset({"id", "uses", "needs", "extends", "profile", *TASK_ARGUMENTS, *STEP_ARGUMENTS})
#: What a pattern means, in words.
_PATTERNS = {
    steps_base.ENTRY_PATTERN: "must be FILE.py:NAME",
    publish.NAME_PATTERN: "must be letters, digits, ., _ and -, at most 128, the first one a letter or digit",
    score.REGISTERED: "is not how a registered model is named",
    AGE_PATTERN: "is no age: write 12h, 90d or 8w",
}
#: Stands for what another task will have made.
_ARTIFACT = ArtifactRef(kind="dataset", uri="", sha256="0" * 64)


def check_with(spec: StepSpec, config: dict[str, Any], known: Mapping[str, Any], path: Path, faults: Faults) -> None:
    """Note every fault of a step's ``with:``.

    Args:
        spec: The step.
        config: Parsed ``with:``; references and templates stand for values that only a run knows, so they fit anywhere.
        known: What templates stand for that are nothing but a name, by that name: defaults of ``params.X``, and
            parts of the ``item`` at hand.
        path: Place of the ``with:``.
        faults: Where to note.
    """
    inner = spec.config.inner_models(config)
    check_model(spec.config, config, path, faults, known, skip=inner)
    for key, model in inner.items():
        check_model(model, config.get(key, {}), (*path, key), faults, known)
    _check_gates(spec, config, path, faults)
    for place, text in _texts(config, path):
        if "{{" in text or "{%" in text:
            faults.add(
                place,
                "this looks like a template, and text is taken as it is",
                allowed="write {$t: ...} to render it, or {$const: ...} to keep it",
                code="template",
            )


def check_model(
    model: type[BaseModel],
    value: Any,
    path: Path,
    faults: Faults,
    known: Mapping[str, Any] | None = None,
    skip: Container[object] = (),
) -> None:
    """Note every fault of a value that a pydantic model describes, in our own words; ``skip`` is said elsewhere."""
    try:
        model.__pydantic_validator__.validate_python(_stand_ins(model, _plain(value, known or {})), strict=True)
    except ValidationError as error:
        by_place: dict[Path, list[Any]] = {}
        for fault in error.errors(include_url=False):
            if isinstance(fault["input"], (Reference, Template)) and fault["type"] != "extra_forbidden":
                continue
            by_place.setdefault(_document_path(value, fault["loc"]), []).append(fault)
        for place, found in by_place.items():
            if place and place[0] in skip:
                continue
            if place[:1] == ("gates",) and len(place) + (found[0]["type"] == "value_error") > 1:
                continue  # said by _check_gates
            if _inside_artifact(model, place) and not _is_text(model, value, place):
                _note_reference(model, value, path, place, faults)
            elif isinstance(template := _at(value, place), Template):
                _note_param(template, found, (*path, *place), faults)
            else:
                _note(model, found, path, place, faults)


def _stand_ins(model: type[BaseModel], value: Any) -> Any:
    """Put an artifact where a marker promises one, so that rules between fields are checked, too."""
    fields = accepted_kinds(model) if isinstance(value, dict) else {}
    for name, kinds in fields.items():
        if steps_base.TEXT in kinds:
            continue  # only a run knows which of both it is
        given = value.get(name)
        if isinstance(given, (Reference, Template)):
            value[name] = [_ARTIFACT] if _is_list(model, name) and isinstance(given, Template) else _ARTIFACT
        elif isinstance(given, list):
            value[name] = [_ARTIFACT if isinstance(item, (Reference, Template)) else item for item in given]
    return value


def _plain(value: Any, known: Mapping[str, Any]) -> Any:
    """Return a value with constants and names unpacked; references and other templates stay as objects."""
    if isinstance(value, Constant):
        return value.value
    if isinstance(value, Template):
        return known.get(_name(value) or "", value)
    if isinstance(value, dict):
        return {key: _plain(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, known) for item in value]
    return value


def _name(template: Template) -> str | None:
    """Return ``params.X`` or ``item.X`` if a template is nothing but that."""
    if (param := pure_param(template.text)) is not None:
        return f"params.{param}"
    path = pure_item(template.text)
    return None if path is None else ".".join(("item", *map(str, path)))


def known_names(params: Mapping[str, Any], item: Any = None) -> dict[str, Any]:
    """Return what names in templates stand for: ``params.X`` their defaults, ``item.X`` parts of an item."""
    known = {f"params.{name}": value for name, value in params.items()}
    _add_parts("item", item, known)
    return known


def _add_parts(name: str, value: Any, known: dict[str, Any]) -> None:
    if value is None:
        return
    known[name] = value
    if isinstance(value, dict):
        for key, part in value.items():
            _add_parts(f"{name}.{key}", part, known)


def _at(value: Any, place: Path) -> Any:
    for part in place:
        if isinstance(value, dict) and part not in value:
            return None
        value = value[part] if isinstance(value, (dict, list)) else None  # type: ignore[index]
    return value


def _note_param(template: Template, found: list[Any], path: Path, faults: Faults) -> None:
    name, value = _name(template) or "", found[0]["input"]
    wanted = _join(dict.fromkeys(_wanted(fault) for fault in found))
    kind, _, rest = name.partition(".")
    shown = f"param {rest} is {_shown(value)} by default" if kind == "params" else f"{name} is {_shown(value)}"
    faults.add(path, f"{shown}: {wanted}", code="type")


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def _document_path(config: Any, loc: tuple[int | str, ...]) -> Path:
    """Return the part of a pydantic location that exists in the document (it also names union members)."""
    place: list[int | str] = []
    value: Any = config
    for part in loc:
        if _has(value, part):
            value = value[part]
        elif part == steps_base.MAPPING and isinstance(value, dict):
            continue
        else:
            if isinstance(value, dict) and part == loc[-1]:
                place.append(part)
            break
        place.append(part)
    return tuple(place)


def _has(value: Any, part: int | str) -> bool:
    if isinstance(value, dict):
        return isinstance(part, str) and part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _inside_artifact(model: type[BaseModel], place: Path) -> bool:
    return bool(place) and place[0] in accepted_kinds(model)


def _is_text(model: type[BaseModel], value: Any, place: Path) -> bool:
    """Whether a field that takes an artifact or a text was given something that was meant as the text."""
    given = value.get(place[0]) if isinstance(value, dict) else None
    return steps_base.TEXT in accepted_kinds(model)[str(place[0])] and not isinstance(given, dict)


def _note_reference(model: type[BaseModel], value: Any, path: Path, place: Path, faults: Faults) -> None:
    """Say that a field takes another task's output, whatever it got instead."""
    field = place[0]
    if isinstance(value, dict) and field not in value:
        faults.add(path, f"{field} is required", allowed=_description(model, (field,)), code="missing-key")
        return
    end = 2 if len(place) > 1 and isinstance(place[1], int) else 1
    given: Any = value
    for part in place[:end]:
        given = given[part]
    if isinstance(given, list):
        faults.add((*path, *place[:end]), "an empty list", allowed="a list of {$x: TASK}", code="value")
        return
    name = given if isinstance(given, str) and given.isidentifier() else "TASK"
    name = given.task if isinstance(given, Reference) else name
    many = end == 1 and _is_list(model, str(field))
    faults.add(
        (*path, *place[:end]),
        f"{_shown(given)} is no {'list of references' if many else 'reference'} to another task",
        allowed=f"write {'[{$x: ' + name + '}]' if many else '{$x: ' + name + '}'}",
        code="reference",
    )


def _is_list(model: type[BaseModel], field: str) -> bool:
    info = _field(model, field)
    return info is not None and getattr(info.annotation, "__origin__", None) is list


def _note(model: type[BaseModel], found: list[Any], path: Path, place: Path, faults: Faults) -> None:
    first = found[0]
    kind, value = first["type"], first["input"]
    full = (*path, *place)
    if kind == "extra_forbidden":
        _note_unknown(model, path, place, faults)
    elif kind == "missing":
        key = place[-1] if place else first["loc"][-1]
        faults.add((*path, *place[:-1]), f"{key} is required", allowed=_description(model, place), code="missing-key")
    elif kind == "literal_error":
        expected = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        faults.add(
            full,
            f"{_shown(value)} is not allowed here",
            allowed=f"allowed are: {listing(expected, 20)}",
            suggestion=near(value, expected),
            code="value",
        )
    else:
        code = "type" if kind in _TYPES else "value"
        wanted = _join(dict.fromkeys(_wanted(fault) for fault in found))
        message = wanted if kind == "value_error" and isinstance(value, dict) else f"{_shown(value)}: {wanted}"
        faults.add(full, message, allowed=_description(model, place), code=code)


def _note_unknown(model: type[BaseModel], path: Path, place: Path, faults: Faults) -> None:
    key = place[-1]
    if len(place) == 1 and path[:1] == ("tasks",) and key in _BESIDE_WITH:
        faults.add(
            (*path, *place),
            f"{key!r} is an argument of the task",
            allowed="write it beside with:, not inside",
            code="unknown-key",
            key=True,
        )
    else:
        faults.unknown_key((*path, *place), _fields_at(model, place[:-1]))


def _wanted(fault: Any) -> str:
    """Say what pydantic wanted, in our words."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}"
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"must be {words} {context[name]:g}"
    if kind in ("string_too_short", "too_short"):
        return f"must have at least {context['min_length']} " + ("character" if kind[0] == "s" else "item")
    if kind in ("string_too_long", "too_long"):
        return f"must have at most {context['max_length']} " + ("character" if kind[0] == "s" else "item")
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"must look like {context['pattern']}")
    return str(fault["msg"]).removeprefix("Value error, ").replace("Input should", "must")


def _join(texts: Mapping[str, Any]) -> str:
    first, *rest = texts
    return ", or ".join([first, *(text.removeprefix("must be ") for text in rest)])


def _shown(value: Any) -> str:
    # a fault shows up in logs and in Airflow's list of import errors
    text = re.sub(r"(://[^/?#@:\s]*):[^/?#@\s]*@", r"\1:***@", repr(encode(value)))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _field(model: type[BaseModel], name: Any) -> Any:
    return next((info for field, info in model.model_fields.items() if name in (field, info.alias)), None)


def _model_at(model: type[BaseModel], place: Path) -> type[BaseModel] | None:
    """Return the configuration model at a place, if one is there (a key of a free mapping leads to its values')."""
    current: list[type[BaseModel]] = [model]
    for part in place:
        info = _field(current[0], part) if current else None
        if info is not None:
            current = _models_in(info.annotation)
        elif not isinstance(part, int) and current == [model]:
            return None
    return current[0] if current else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]


def _fields_at(model: type[BaseModel], place: Path) -> list[str]:
    found = _model_at(model, place)
    return [info.alias or name for name, info in found.model_fields.items()] if found else []


def _description(model: type[BaseModel], place: Path) -> str | None:
    parent = _model_at(model, place[:-1]) if place else None
    info = _field(parent, place[-1]) if parent else None
    return info.description.rstrip(".") if info is not None and info.description else None


def _check_gates(spec: StepSpec, config: Mapping[str, Any], path: Path, faults: Faults) -> None:
    gates = config.get("gates")
    if not isinstance(gates, dict):
        return
    for metric, limit in gates.items():
        place = (*path, "gates", metric)
        if not isinstance(limit, (Reference, Template)):
            try:
                if not (metric == "verified" and isinstance(limit, bool)):  # a yes-or-no question may be asked as one
                    parse_gate(metric, _plain(limit, {}))
            except ValueError as error:
                faults.add(place, str(error), code="gate")
        if not any(metric == name or (name[-1] == "*" and metric.startswith(name[:-1])) for name in spec.metrics):
            faults.add(
                place,
                f"{spec.name} does not measure {metric!r}",
                allowed=f"gates may name: {listing(spec.metrics, 40)}",
                suggestion=near(metric, spec.metrics),
                code="unknown-metric",
                key=True,
            )
