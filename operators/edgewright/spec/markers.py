"""Value markers between their YAML form and their parsed form.

Airflow 3.4's grammar: ``$x`` (also ``$xcom``) another task's output, ``$t`` (``$template``) a template, ``$f``
(``$file``) a file's text, ``$const`` a literal. ``$f`` is read when the document is loaded; the others stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgewright.spec.pipeline import Best, Constant, Reference, Template

_PURE_PARAM = re.compile(r"^\s*\{\{\s*params(?:\.([A-Za-z_]\w*)|\[\s*(['\"])(.+?)\2\s*\])\s*\}\}\s*$")


def pure_param(template: str) -> str | None:
    """Return the name of the param if a template is nothing but ``{{ params.X }}``: then it is the typed param."""
    match = _PURE_PARAM.match(template)
    return (match.group(1) or match.group(3)) if match else None


_PURE_ITEM = re.compile(r"^\s*\{\{\s*item((?:\.[A-Za-z_]\w*|\[\s*(?:'[^']*'|\"[^\"]*\"|\d+)\s*\])*)\s*\}\}\s*$")
_PART = re.compile(r"\.([A-Za-z_]\w*)|\[\s*(?:'([^']*)'|\"([^\"]*)\"|(\d+))\s*\]")


def pure_item(template: str) -> tuple[str | int, ...] | None:
    """Return the path into the item if a template is nothing but ``{{ item }}`` or ``{{ item.a.b }}``: it is typed."""
    match = _PURE_ITEM.match(template)
    if match is None:
        return None
    parts = _PART.findall(match.group(1))
    return tuple(int(number) if number else name or single or double for name, single, double, number in parts)


def item_at(item: Any, path: tuple[str | int, ...]) -> Any:
    """Return a part of an item.

    Raises:
        KeyError: the item has no such part; the argument is the part.
    """
    for part in path:
        try:
            item = item[part]
        except (KeyError, IndexError, TypeError):
            raise KeyError(part) from None
    return item


def encode(value: Any) -> Any:
    """Return a parsed value as plain JSON with markers, as it is kept in a serialized Dag and shown to people."""
    if isinstance(value, Reference):
        return {"$x": _encode_reference(value)}
    if isinstance(value, Template):
        return {"$t": value.text}
    if isinstance(value, Constant):
        return {"$const": value.value}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def _encode_reference(reference: Reference) -> Any:
    if reference.key is None and reference.items is None:
        return reference.task
    found: dict[str, Any] = {"task": reference.task}
    if reference.key is not None:
        found["key"] = reference.key
    if isinstance(reference.items, Best):
        found["best_of"] = {
            "metric": reference.items.metric,
            "mode": reference.items.mode,
            "task": reference.items.task,
        }
    elif reference.items is not None:
        found["items"] = reference.items
    return found


def _decode_reference(inner: Any) -> Reference:
    if isinstance(inner, str):
        return Reference(inner)
    best = inner.get("best_of")
    return Reference(inner["task"], inner.get("key"), Best(**best) if best else inner.get("items"))


def decode(value: Any) -> Any:
    """Return plain JSON with markers as a parsed value; the inverse of :func:`encode`."""
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key in ("$x", "$xcom"):
                return _decode_reference(inner)
            if key in ("$t", "$template"):
                return Template(inner)
            if key == "$const":
                return Constant(inner)
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [decode(item) for item in value]
    return value
