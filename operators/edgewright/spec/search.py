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
from edgewright.spec.space import AXIS, AXIS_KEYS, wrong_axis
from edgewright.spec.steps.evaluate import METRICS

METHODS = ("grid", "random", "optuna")
#: Learns from trial to trial, so its trials run one after another within a task.
ADAPTIVE = "optuna"
KEYS = ("method", "space", "trials", "seed")
ADAPTIVE_KEYS = (*KEYS, "metric", "folds")
_DEFAULT_TRIALS = 20
#: So many draws for each trial that is wanted; a small space may not have that many different ones.
_DRAWS = 20


def read_search(value: Any, path: Path, faults: Faults) -> ForEach | None:
    """Return the trials of a search as what a task or group runs once for each of.

    Args:
        value: Value of ``search:``.
        path: Its place.
        faults: Where to note.
    """
    method = _method(value, path, faults)
    if method is None:
        return None
    axes, trials, seed = _common(value, method, path, faults)
    if axes is None or trials is None or seed is None:
        return None
    return _grid(axes, value, path, faults) if method == "grid" else ForEach(_drawn(axes, trials, seed))


def is_adaptive(entry: dict[str, Any]) -> bool:
    """Whether an entry under ``tasks:`` has a search whose trials depend on those before."""
    value = entry.get("search")
    return isinstance(value, dict) and value.get("method") == ADAPTIVE


def read_adaptive(entry: dict[str, Any], path: Path, faults: Faults) -> dict[str, Any]:
    """Return a task whose step does the search itself: what ``search:`` says stands in its ``with:``.

    Args:
        entry: The task, whole.
        path: Its place.
        faults: Where to note.
    """
    value, place = entry["search"], (*path, "search")
    entry = {key: kept for key, kept in entry.items() if key != "search"}
    for key in ("for_each", "best_of"):
        if entry.pop(key, None) is not None:
            faults.add((*path, key), "search: {method: optuna} tries one after another in one task, and keeps the best",
                       allowed="leave it out, or say method: random", code="value", key=True)  # fmt: skip
    config = entry.get("with")
    if entry.get("uses") != "train" or not isinstance(config, dict) or "entry" not in config:
        faults.add(place, "method: optuna needs a task with uses: train and entry:, which it calls for each trial",
                   allowed="method: grid or random for anything else", code="unsupported", key=True)  # fmt: skip
        return entry
    method = _method(value, place, faults)
    axes, *_ = _common(value, ADAPTIVE, place, faults)
    metric, folds = value.get("metric"), value.get("folds", 3)
    if metric is not None and metric not in METRICS:
        faults.add((*place, "metric"), f"{metric!r} is not measured", allowed=f"allowed are: {', '.join(METRICS)}",
                   suggestion=near(str(metric), METRICS), code="unknown-metric")  # fmt: skip
    if isinstance(folds, bool) or not isinstance(folds, int) or not 1 <= folds <= 20:
        faults.add((*place, "folds"), f"{folds!r} is no number of this", allowed="a whole number from 1 to 20",
                   code="value")  # fmt: skip
    given = config.get("args") if isinstance(config.get("args"), dict) else {}
    for name in axes or ():
        if name in (given or {}):
            faults.add((*place, "space", name), f"{name} stands in args: as well", allowed="one of them",
                       code="value", key=True)  # fmt: skip
    return entry if method is None or axes is None else {**entry, "with": {**config, "search": value}}


def _method(value: Any, path: Path, faults: Faults) -> str | None:
    if not isinstance(value, dict):
        faults.add(path, "must say what is searched", allowed="{method: random, space: {alpha: [0.1, 1]}}", code="type")
        return None
    method = value.get("method")
    if method not in METHODS:
        shown = "method is missing" if method is None else f"{method!r} is not allowed here"
        faults.add((*path, "method") if "method" in value else path, shown,
                   allowed=f"allowed are: {', '.join(METHODS)}", suggestion=near(str(method), METHODS),
                   code="value")  # fmt: skip
        return None
    keys = ADAPTIVE_KEYS if method == ADAPTIVE else KEYS
    for key in value:
        if key in ADAPTIVE_KEYS and key not in keys:
            faults.add((*path, key), f"{key} goes with method: optuna", code="value", key=True,
                       allowed="evaluate measures the trials of the others")  # fmt: skip
        elif key not in keys:
            faults.unknown_key((*path, key), keys)
    return str(method)


def _common(
    value: dict[str, Any], method: str, path: Path, faults: Faults
) -> tuple[dict[str, Any] | None, int | None, int | None]:
    """Return space, number of trials and seed; ``None`` for what has a fault."""
    axes = _axes(value.get("space"), (*path, "space") if "space" in value else path, method, faults)
    trials = _count(value, "trials", _DEFAULT_TRIALS, 1, path, faults)
    return axes, trials, _count(value, "seed", 0, 0, path, faults)


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
        faults.add(path, "space must say what may vary", allowed=f"{{NAME: {AXIS}}}", code="type")
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
            faults.add(place, why, allowed="a list of values" if method == "grid" else AXIS, code="value")
            sound = False
    return space if sound else None


def _wrong(axis: Any, method: str, place: Path, faults: Faults) -> str:
    """Return what is wrong with what one name may be; empty where nothing is."""
    if method == "grid" and isinstance(axis, dict):
        return "a grid needs a list"
    for key in axis if isinstance(axis, dict) else ():
        if key not in AXIS_KEYS:
            faults.unknown_key((*place, key), AXIS_KEYS)
    return wrong_axis(axis)


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
