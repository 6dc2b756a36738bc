"""From a task's ``with:`` to a step's configuration: references become artifacts, templates become values.

Shared by everything that runs steps, so that a pipeline means the same here and in Airflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgewright.errors import ConfigError
from edgewright.spec.markers import pure_param
from edgewright.spec.pipeline import Constant, Reference, Template
from edgewright.spec.steps import STEPS
from edgewright.spec.steps.base import accepted_kinds

__all__ = ["pure_param", "resolve_config"]


def resolve_config(
    step: str,
    config: Mapping[str, Any],
    *,
    result_of: Callable[[str], Any],
    render: Callable[[str], Any],
    params: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a step's configuration with every marker replaced.

    Args:
        step: Short name of the step.
        config: Parsed ``with:``.
        result_of: Returns another task's result: a step's result document, or an operator's return value.
        render: Renders a Jinja template to text.
        params: The run's typed params; ``{{ params.X }}`` alone is the param itself.

    Raises:
        ConfigError: a referenced task has no output that fits, or a param does not exist.
    """
    accepted = accepted_kinds(STEPS[step].config)

    def resolve(value: Any, field: str | None) -> Any:
        if isinstance(value, Reference):
            return _take(value, result_of(value.task), accepted.get(field or ""), field)
        if isinstance(value, Template):
            return _render(value.text, render, params)
        if isinstance(value, Constant):
            return value.value
        if isinstance(value, Mapping):
            return {key: resolve(item, None) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return _expand([resolve_item(item, field) for item in value])
        return value

    def resolve_item(item: Any, field: str | None) -> Any:
        if isinstance(item, Reference) and item.key is None and field in accepted:
            return _All(_fitting(result_of(item.task), accepted[field or ""], item, field))
        return resolve(item, field)

    return {key: resolve(value, key) for key, value in config.items()}


class _All(list[Any]):
    """Every output that fits: what a reference inside a list stands for."""


def _expand(items: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for item in items:
        flat.extend(item) if isinstance(item, _All) else flat.append(item)
    return flat


def _render(text: str, render: Callable[[str], Any], params: Mapping[str, Any]) -> Any:
    name = pure_param(text)
    if name is None:
        return render(text)
    if name not in params:
        raise ConfigError(f"no such param: {name}", hint=f"there are: {', '.join(sorted(params)) or 'none'}")
    return params[name]


def _is_result(value: Any) -> bool:
    return isinstance(value, Mapping) and {"step", "identity", "outputs"} <= set(value)


def _take(reference: Reference, value: Any, kinds: tuple[str, ...] | None, field: str | None) -> Any:
    """Return what a single reference means: an output that fits, one by name, or the whole value."""
    if kinds is not None and not (_is_result(value) and reference.key):
        return _fitting(value, kinds, reference, field)[-1]
    if not _is_result(value) or reference.key is None:
        return value
    for place in ("outputs", "metrics", "tags"):
        if reference.key in value.get(place, {}):
            return value[place][reference.key]
    raise ConfigError(
        f"task {reference.task} has no output {reference.key}",
        where=field,
        hint=f"it has: {', '.join(sorted(value['outputs'])) or 'no artifacts'}",
    )


def _fitting(value: Any, kinds: tuple[str, ...], reference: Reference, field: str | None) -> list[Any]:
    """Return the outputs that fit; the one named like its kind (else the first) comes last."""
    if isinstance(value, Mapping) and {"kind", "uri", "sha256"} <= set(value):
        return [dict(value)]
    outputs = value.get("outputs", {}) if _is_result(value) else {}
    fitting = {name: ref for name, ref in outputs.items() if ref["kind"] in kinds}
    if not fitting:
        shown = ", ".join(f"{name} ({ref['kind']})" for name, ref in outputs.items())
        raise ConfigError(
            f"task {reference.task} has no {' or '.join(kinds)}",
            where=field,
            hint=f"its outputs are: {shown or 'none'}",
        )
    main = next((name for name, ref in fitting.items() if name == ref["kind"]), next(iter(fitting)))
    return [*(ref for name, ref in fitting.items() if name != main), fitting[main]]
