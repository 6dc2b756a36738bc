"""``search:``: a hyperparameter search as the items of a ``for_each:``, drawn when the document is read.

The same text always gives the same trials: ``random`` draws from a seeded generator, so every worker that reads the
file sees the same items, and a trial that was trained before is reused.
"""

from __future__ import annotations

import math
import random
from typing import Any

from edgewright.spec.faults import Faults, Path, near
from edgewright.spec.mapping import MOST_ITEMS, combine
from edgewright.spec.pipeline import ForEach

METHODS = ("grid", "random")
KEYS = ("method", "space", "trials", "seed")
AXIS_KEYS = ("from", "to", "log", "step")
_DEFAULT_TRIALS = 20
_AXIS = "a list of values, or {from: 0.0001, to: 1, log: true}"
#: So many draws for each trial that is wanted; a small space may not have that many different ones.
_DRAWS = 20


def read_search(value: Any, path: Path, faults: Faults) -> ForEach | None:
    """Return the trials of a search as what a task or group runs once for each of.

    Args:
        value: Value of ``search:``.
        path: Its place.
        faults: Where to note.
    """
    if not isinstance(value, dict):
        faults.add(path, "must say what is searched", allowed="{method: random, space: {alpha: [0.1, 1]}}", code="type")
        return None
    for key in value:
        if key not in KEYS:
            faults.unknown_key((*path, key), KEYS)
    method, space = value.get("method"), value.get("space")
    if method not in METHODS:
        shown = "method is missing" if method is None else f"{method!r} is not allowed here"
        faults.add((*path, "method") if "method" in value else path, shown, allowed="allowed are: grid, random",
                   suggestion=near(str(method), METHODS), code="value")  # fmt: skip
        return None
    axes = _axes(space, (*path, "space") if "space" in value else path, method, faults)
    trials = _count(value, "trials", _DEFAULT_TRIALS, 1, path, faults)
    seed = _count(value, "seed", 0, 0, path, faults)
    if axes is None or trials is None or seed is None:
        return None
    return _grid(axes, value, path, faults) if method == "grid" else ForEach(_drawn(axes, trials, seed))


def _count(value: dict[str, Any], key: str, default: int, least: int, path: Path, faults: Faults) -> int | None:
    found = value.get(key, default)
    if isinstance(found, int) and not isinstance(found, bool) and least <= found <= (MOST_ITEMS if least else 2**32):
        return found
    allowed = f"a whole number from {least} to {MOST_ITEMS:,}" if least else "a whole number, 0 or more"
    faults.add((*path, key), f"{found!r} is no number of this", allowed=allowed, code="value")
    return None


def _grid(axes: dict[str, Any], value: dict[str, Any], path: Path, faults: Faults) -> ForEach | None:
    given = [key for key in ("trials", "seed") if key in value]
    if given:
        faults.add((*path, given[0]), "a grid has all combinations", allowed="leave it out, or say method: random",
                   code="value", key=True)  # fmt: skip
        return None
    items = math.prod(len(axis) for axis in axes.values())
    if items > MOST_ITEMS:
        faults.add((*path, "space"), f"{items:,} combinations", allowed=f"at most {MOST_ITEMS:,}, as Airflow maps; "
                   "or say method: random, trials: 100", code="value")  # fmt: skip
        return None
    return ForEach(tuple(combine(axes)))


def _axes(space: Any, path: Path, method: str, faults: Faults) -> dict[str, Any] | None:
    if not isinstance(space, dict) or not space:
        faults.add(path, "space must say what may vary", allowed=f"{{NAME: {_AXIS}}}", code="type")
        return None
    sound = True
    for name, axis in space.items():
        place = (*path, name)
        if not str(name).isidentifier():
            faults.add(place, f"{name!r} is no name", allowed="letters, digits and _: {{ item.NAME }}", code="value",
                       key=True)  # fmt: skip
            sound = False
        why = _wrong(axis, method, place, faults)
        if why:
            faults.add(place, why, allowed="a list of values" if method == "grid" else _AXIS, code="value")
            sound = False
    return space if sound else None


def _wrong(axis: Any, method: str, place: Path, faults: Faults) -> str:
    """Return what is wrong with what one name may be; empty where nothing is."""
    if isinstance(axis, list):
        plain = all(isinstance(value, (str, int, float, type(None))) for value in axis)
        return "" if axis and plain else "must be a list of values"
    if not isinstance(axis, dict):
        return "must be a list of values"
    if method == "grid":
        return "a grid needs a list"
    for key in axis:
        if key not in AXIS_KEYS:
            faults.unknown_key((*place, key), AXIS_KEYS)
    return _wrong_range(axis)


def _wrong_range(axis: dict[str, Any]) -> str:
    low, high, step = axis.get("from"), axis.get("to"), axis.get("step", 1)
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in (low, high, step)):
        return "needs numbers as from and to"
    if not low < high or step <= 0:  # type: ignore[operator]
        return "from must be less than to, and step above 0"
    if not isinstance(axis.get("log", False), bool) or (axis.get("log") and "step" in axis):
        return "log is true or false, and goes without step"
    return "log needs from above 0" if axis.get("log") and low <= 0 else ""  # type: ignore[operator]


def _drawn(axes: dict[str, Any], trials: int, seed: int) -> tuple[dict[str, Any], ...]:
    """Return so many different trials, or as many as the space has."""
    source = random.Random(seed)
    found: list[dict[str, Any]] = []
    for _ in range(trials * _DRAWS):
        trial = {name: _draw(axis, source) for name, axis in axes.items()}
        if trial not in found:
            found.append(trial)
        if len(found) == trials:
            break
    return tuple(found)


def _draw(axis: Any, source: random.Random) -> Any:
    if isinstance(axis, list):
        return source.choice(axis)
    low, high = axis["from"], axis["to"]
    whole = isinstance(low, int) and isinstance(high, int)
    if axis.get("log"):
        value = math.exp(source.uniform(math.log(low), math.log(high)))
        return min(high, max(low, round(value))) if whole else _rounded(value, low, high)
    if "step" in axis:
        value = low + axis["step"] * source.randint(0, int((high - low) / axis["step"] + 1e-9))
        return value if isinstance(value, int) else float(f"{value:.12g}")
    return source.randint(low, high) if whole else _rounded(source.uniform(low, high), low, high)


def _rounded(value: float, low: float, high: float) -> float:
    """Return a number short enough to read, within its range."""
    return min(float(high), max(float(low), float(f"{value:.6g}")))
