"""Turns documents into HTML. Everything is escaped; no page loads anything from elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = size
    environment.filters["number"] = number
    environment.filters["segment"] = lambda text: quote(str(text), safe="")
    return environment


def render(template: str, document: dict[str, Any]) -> str:
    """Return a page of one template and its document."""
    return _environment().get_template(template).render(**document)


def size(count: int | None) -> str:
    """Return a number of bytes for people."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def number(value: Any) -> str:
    """Return a number with six significant digits, anything else as it is."""
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError):
        return str(value)
