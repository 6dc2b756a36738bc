"""What ``for_each:`` and ``best_of:`` mean when a run comes to them; the same here and in Airflow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgewright.errors import ConfigError
from edgewright.spec.mapping import MOST_ITEMS, combine
from edgewright.spec.pipeline import Best, ForEach, Reference, Template

_LONGEST_LABEL = 60


def items_of(source: Any, value_of: Callable[[Reference | Template], Any], where: str) -> list[Any]:
    """Return the items that a run maps over.

    Args:
        source: A reference, a template that is a param, or lists by name, of which some are such.
        value_of: Returns what a reference or template stands for.
        where: The task, for messages.

    Raises:
        ConfigError: something is no list, or there are more than Airflow maps over.
    """
    if isinstance(source, Mapping):
        lists = {
            name: _list(value_of(axis) if isinstance(axis, (Reference, Template)) else axis, f"{where}.{name}")
            for name, axis in source.items()
        }
        items = combine(lists)
    else:
        items = _list(value_of(source), where)
    if len(items) > MOST_ITEMS:
        raise ConfigError(f"{len(items):,} items are too many", where=where, hint=f"at most {MOST_ITEMS:,}")
    return items


def items_of_mapping(mapping: ForEach, value_of: Callable[[Reference | Template], Any], where: str) -> list[Any]:
    """Return the items of ``for_each:``, said by the document or made by the run; errors as :func:`items_of`."""
    if mapping.items is not None:
        return list(mapping.items)
    return items_of(mapping.source, value_of, f"{where}.for_each")


def _list(value: Any, where: str) -> list[Any]:
    if isinstance(value, str) and value.startswith("["):
        with contextlib.suppress(ValueError):
            value = json.loads(value)  # a tag of a step, which is text
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise ConfigError(
            f"{type(value).__name__} is no list", where=where, hint="for_each: runs once for each of a list"
        )
    return list(value)


def label(item: Any) -> str:
    """Return an item in a few words, as people tell instances apart: ``alpha=0.01, hidden=32``."""
    if isinstance(item, Mapping) and {"step", "identity", "outputs"} <= set(item):
        return f"{item['identity']['task_id']} {item['identity']['map_index']}"
    if isinstance(item, Mapping):
        text = ", ".join(f"{key}={_short(value)}" for key, value in item.items())
    else:
        text = _short(item)
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 3]}..."


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def choose(best: Best, results: Sequence[Any]) -> int:
    """Return the map index of the best instance; of equal ones it is the first.

    Args:
        best: What is compared, and how.
        results: What the instances of the measuring task returned; those of steps know their map index, others are
            in its order.

    Raises:
        ConfigError: no instance measured the metric.
    """
    measured: list[tuple[float, int]] = []
    known: set[str] = set()
    for place, result in enumerate(results):
        if not isinstance(result, Mapping) or result.get("state", "success") != "success":
            continue
        metrics = result["metrics"] if isinstance(result.get("metrics"), Mapping) else result
        known |= {str(name) for name, value in metrics.items() if isinstance(value, (int, float))}
        value = metrics.get(best.metric)
        if isinstance(value, (int, float)) and value == value:
            identity = result.get("identity")
            index = identity["map_index"] if isinstance(identity, Mapping) else place
            measured.append((float(value), int(index)))
    if not measured:
        raise ConfigError(
            f"no instance of task {best.task} measured {best.metric}",
            where="best_of",
            hint=f"there is: {', '.join(sorted(known)) or 'nothing'}",
        )
    sign = -1 if best.mode == "max" else 1
    return min(measured, key=lambda entry: (sign * entry[0], entry[1]))[1]
