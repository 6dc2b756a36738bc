"""What a hyperparameter may be: a list of values, or a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

AXIS_KEYS = ("from", "to", "log", "step")
AXIS = "a list of values, or {from: 0.0001, to: 1, log: true}"


def wrong_axis(axis: Any) -> str:
    """Return what is wrong with what one hyperparameter may be; empty where nothing is. Keys are not looked at."""
    if isinstance(axis, list):
        plain = all(isinstance(value, (str, int, float, type(None))) for value in axis)
        return "" if axis and plain else "must be a list of values"
    return _wrong_range(axis) if isinstance(axis, Mapping) else "must be a list of values, or a range"


def _wrong_range(axis: Mapping[str, Any]) -> str:
    low, high, step = axis.get("from"), axis.get("to"), axis.get("step", 1)
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in (low, high, step)):
        return "needs numbers as from and to"
    if not low < high or step <= 0:  # type: ignore[operator]
        return "from must be less than to, and step above 0"
    if not isinstance(axis.get("log", False), bool) or (axis.get("log") and "step" in axis):
        return "log is true or false, and goes without step"
    return "log needs from above 0" if axis.get("log") and low <= 0 else ""  # type: ignore[operator]
