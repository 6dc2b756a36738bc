"""From a task's ``with:`` to a step's configuration: references become artifacts, templates become values.

Shared by everything that runs steps, so that a pipeline means the same here and in Airflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgewright.errors import ConfigError
from edgewright.spec.markers import item_at, pure_item, pure_param
from edgewright.spec.pipeline import Constant, Reference, Template
from edgewright.spec.steps import STEPS
from edgewright.spec.steps.base import TEXT, accepted_kinds

__all__ = ["pure_param", "resolve_config"]


def resolve_config(
    step: str,
    config: Mapping[str, Any],
    *,
    result_of: Callable[[Reference], Any],
    render: Callable[[str], Any],
    params: Mapping[str, Any],
    item: Any = None,
) -> dict[str, Any]:
    """Return a step's configuration with every marker replaced.

    Args:
        step: Short name of the step.
        config: Parsed ``with:``.
        result_of: Returns what a reference's task made: a step's result document, or an operator's return value; a
            list of them for all instances of a mapped task.
        render: Renders a Jinja template to text.
        params: The run's typed params; ``{{ params.X }}`` alone is the param itself.
        item: What this instance of a mapped task is for; ``{{ item.x }}`` alone is that part of it itself.

    Raises:
        ConfigError: a referenced task has no output that fits, or a param or a part of the item does not exist.
    """
    accepted = accepted_kinds(STEPS[step].config)
    resolver = _Resolver(accepted, result_of, lambda text: _render(text, render, params, item))
    return {key: resolver.value(value, key) for key, value in config.items()}


class _Resolver:
    """Replaces the markers of one configuration.

    Args:
        accepted: Kinds of artifact that each input field takes.
        result_of: Returns what a reference's task made.
        render: Returns what a template stands for.
    """

    def __init__(
        self,
        accepted: Mapping[str, tuple[str, ...]],
        result_of: Callable[[Reference], Any],
        render: Callable[[str], Any],
    ) -> None:
        self._accepted = accepted
        self._result_of = result_of
        self._render = render

    def value(self, value: Any, field: str | None) -> Any:
        """Return a value of a field (``None``: of something inside of one)."""
        if isinstance(value, Reference):
            return self._reference(value, field)
        if isinstance(value, Template):
            return self._template(value, field)
        if isinstance(value, Constant):
            return value.value
        if isinstance(value, Mapping):
            return {key: self.value(item, None) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return _expand([self._entry(entry, field) for entry in value])
        return value

    def _reference(self, reference: Reference, field: str | None) -> Any:
        found, kinds = self._result_of(reference), self._accepted.get(field or "")
        if reference.items == "all":
            return [_take(reference, one, kinds, field) for one in found]
        return _take(reference, found, kinds, field)

    def _template(self, template: Template, field: str | None) -> Any:
        found = self._render(template.text)
        kinds = self._accepted.get(field or "")
        if kinds is not None and _is_result(found):  # an item may be what another task made
            return _fitting(found, kinds, Reference(found["identity"]["task_id"]), field)[-1]
        return found

    def _entry(self, entry: Any, field: str | None) -> Any:
        """Return an entry of a list; a reference there stands for every output that fits."""
        kinds = self._accepted.get(field or "")
        if not isinstance(entry, Reference) or kinds is None or (entry.key is not None and entry.items != "all"):
            return self.value(entry, field)
        found = self._result_of(entry) if entry.items == "all" else [self._result_of(entry)]
        if entry.key is not None:
            return _All(_take(entry, one, kinds, field) for one in found)
        return _All(fit for one in found for fit in _fitting(one, kinds, entry, field))


class _All(list[Any]):
    """Every output that fits: what a reference inside a list stands for."""


def _expand(items: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for item in items:
        flat.extend(item) if isinstance(item, _All) else flat.append(item)
    return flat


def _render(text: str, render: Callable[[str], Any], params: Mapping[str, Any], item: Any) -> Any:
    path = pure_item(text)
    if path is not None:
        try:
            return item_at(item, path)
        except KeyError as error:
            raise ConfigError(f"template {text!r}: the item has no {error.args[0]!r}") from None
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
    if kinds is not None and TEXT in kinds and isinstance(value, str):
        return value
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
