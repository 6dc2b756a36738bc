"""Value markers between their YAML form and their parsed form.

Airflow 3.4's grammar: ``$x`` (also ``$xcom``) another task's output, ``$t`` (``$template``) a template, ``$f``
(``$file``) a file's text, ``$const`` a literal. ``$f`` is read when the document is loaded; the others stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgewright.spec.pipeline import Constant, Reference, Template

_PURE_PARAM = re.compile(r"^\s*\{\{\s*params(?:\.([A-Za-z_]\w*)|\[\s*(['\"])(.+?)\2\s*\])\s*\}\}\s*$")


def pure_param(template: str) -> str | None:
    """Return the name of the param if a template is nothing but ``{{ params.X }}``: then it is the typed param."""
    match = _PURE_PARAM.match(template)
    return (match.group(1) or match.group(3)) if match else None


def encode(value: Any) -> Any:
    """Return a parsed value as plain JSON with markers, as it is kept in a serialized Dag and shown to people."""
    if isinstance(value, Reference):
        return {"$x": value.task if value.key is None else {"task": value.task, "key": value.key}}
    if isinstance(value, Template):
        return {"$t": value.text}
    if isinstance(value, Constant):
        return {"$const": value.value}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    """Return plain JSON with markers as a parsed value; the inverse of :func:`encode`."""
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key in ("$x", "$xcom"):
                return Reference(inner) if isinstance(inner, str) else Reference(inner["task"], inner.get("key"))
            if key in ("$t", "$template"):
                return Template(inner)
            if key == "$const":
                return Constant(inner)
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [decode(item) for item in value]
    return value
