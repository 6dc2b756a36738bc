"""``run:``: a task that a handler in another language does (AIP-108), with the arguments that its worker binds.

A value crosses to the other language as JSON, or as what another task returned; nothing is rendered on the way.
"""

from __future__ import annotations

import functools
import json
import keyword
import re
from importlib import metadata
from typing import Any

from edgewright.spec.faults import Faults, Path
from edgewright.spec.jinja import CONTEXT_NAMES
from edgewright.spec.pipeline import Constant, Reference, Template
from edgewright.spec.values import Values

#: The first release whose core binds arguments; older ones know such tasks without any.
BINDING = (3, 4)
#: Keys of a task that are the business of our steps and of Airflow's operators.
NOT_BESIDE = {
    "uses": "write uses: for a step or an operator, run: for a handler in another language",
    "with": "write the handler's arguments below run:",
    "profile": "its queue: decides where a handler runs",
    "for_each": "Airflow maps no handlers; give the whole list as an argument",
    "search": "Airflow maps no handlers; give the whole list as an argument",
}


def read_handler(entry: dict[str, Any], path: Path, values: Values, faults: Faults) -> dict[str, Any]:
    """Return the arguments below ``run:``, with markers parsed.

    Args:
        entry: The task.
        path: Its place.
        values: Parser of values.
        faults: Where to note.
    """
    for key, allowed in NOT_BESIDE.items():
        if entry.get(key) is not None:
            faults.add(
                (*path, key), f"{key}: does not stand beside run:", allowed=allowed, code="combination", key=True
            )
    raw, place = entry["run"], (*path, "run")
    if not isinstance(raw, dict) or any(str(name).startswith("$") for name in raw):
        faults.add(place, "must be a mapping of arguments", allowed="{} or {NAME: VALUE, OTHER: {$x: TASK}}",
                   code="type")  # fmt: skip
        return {}
    _check_release(raw, place, faults)
    arguments = {}
    for name, value in raw.items():
        _check_name(name, (*place, name), faults)
        arguments[name] = values.parse(value, (*place, name))
        _check_value(arguments[name], (*place, name), faults)
    return arguments


def _check_name(name: Any, path: Path, faults: Faults) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        allowed = "letters, digits and _, and no keyword of Python"
        faults.add(path, f"{name!r} is no name of an argument", allowed=allowed, code="value", key=True)
    elif name in CONTEXT_NAMES:
        faults.add(path, f"{name} is what Airflow itself tells every task", allowed="another name", code="value",
                   key=True)  # fmt: skip


def _check_value(value: Any, path: Path, faults: Faults, *, top: bool = True) -> None:
    """Note what cannot be handed to another language."""
    if isinstance(value, Template):
        faults.add(path, "templates are not rendered for a handler",
                   allowed="a literal value, or {$x: TASK}; the handler can read params itself",
                   code="marker")  # fmt: skip
    elif isinstance(value, Reference):
        if value.key is not None:
            faults.add(path, "only what a task returns reaches a handler", allowed=f"{{$x: {value.task}}}",
                       code="marker")  # fmt: skip
        elif not top:
            faults.add(path, "an output stands alone in its argument", allowed=f"NAME: {{$x: {value.task}}}",
                       code="marker")  # fmt: skip
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_value(item, (*path, name), faults, top=False)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_value(item, (*path, index), faults, top=False)
    else:
        _check_json(value.value if isinstance(value, Constant) else value, path, faults)


def _check_json(value: Any, path: Path, faults: Faults) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        allowed = "text, numbers, true, false, null, lists and mappings of them; quote a date"
        faults.add(path, f"{value} cannot be said in JSON", allowed=allowed, code="type")


def _check_release(arguments: dict[str, Any], path: Path, faults: Faults) -> None:
    """Note arguments where Airflow would drop them; without an Airflow here, the one that runs it will say."""
    release = _release()
    if arguments and release is not None and tuple(map(int, re.findall(r"\d+", release)[:2])) < BINDING:
        faults.add(path, f"Airflow {release} hands a handler no arguments; 3.4 does",
                   allowed="run: {} here, with what it needs read by the handler itself; or uses: and with:",
                   code="unsupported", key=True)  # fmt: skip


@functools.cache
def _release() -> str | None:
    """Return which Airflow is installed, without importing it."""
    try:
        return metadata.version("apache-airflow-core")
    except metadata.PackageNotFoundError:
        return None
