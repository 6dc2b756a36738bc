"""``schedule:``: nothing, a preset, a cron text, a timetable, or assets, alone or beside a time."""

from __future__ import annotations

import re
from typing import Any

from edgewright.spec.arguments import asset_fault
from edgewright.spec.faults import Faults, Path, listing, near

PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_ITEM = re.compile(r"^(?:\*|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:/([1-9]\d*))?$")
_DOTTED = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")


def read_schedule(value: Any, path: Path, faults: Faults) -> Any:
    """Return the schedule, after noting what is wrong with it."""
    if value is None:
        return None
    if isinstance(value, dict) and "assets" in value:
        return _assets(value, path, faults)
    if isinstance(value, dict):
        return _timetable(value, path, faults)
    if not isinstance(value, str):
        faults.add(
            path,
            f"{value!r} is no schedule",
            allowed='null, a preset such as "@daily", cron such as "0 3 * * 0", or {assets: [...]}',
            code="schedule",
        )
        return None
    if value.startswith("@"):
        if value not in PRESETS:
            faults.add(
                path,
                f"no such preset: {value!r}",
                allowed=f"presets are: {listing(PRESETS)}",
                suggestion=near(value, PRESETS),
                code="schedule",
            )
        return value
    if (problem := cron_fault(value)) is not None:
        faults.add(
            path,
            f"{value!r} is no cron text: {problem}",
            allowed="five fields: minute, hour, day of month, month, day of week",
            code="schedule",
        )
    return value


def _assets(value: dict[str, Any], path: Path, faults: Faults) -> dict[str, Any]:
    for key in value:
        if key not in ("assets", "time"):
            faults.unknown_key((*path, key), ("assets", "time"))
    _condition(value["assets"], (*path, "assets"), faults)
    time = value.get("time")
    if isinstance(time, dict) and "assets" in time:
        allowed = 'cron such as "0 3 * * 0", a preset, or {uses: TIMETABLE}'
        faults.add((*path, "time"), "must be a time", allowed=allowed, code="schedule")
    elif time in ("@once", "@continuous"):
        faults.add((*path, "time"), f"{time} cannot stand beside assets", allowed='cron such as "0 3 * * 0"',
                   code="schedule")  # fmt: skip
    else:
        read_schedule(time, (*path, "time"), faults)
    return value


def _condition(value: Any, path: Path, faults: Faults) -> None:
    """Note what is wrong with when assets start a pipeline."""
    if isinstance(value, dict) and ("any" in value or "all" in value):
        name = "any" if "any" in value else "all"
        for key in value:
            if key != name:
                faults.unknown_key((*path, key), (name,))
        value, path = value[name], (*path, name)
        if not isinstance(value, list):
            faults.add(path, "must be a list of assets", allowed="[s3://bucket/a, s3://bucket/b]", code="type")
            return
    if not isinstance(value, list):
        value = [value]
        places = [path]
    else:
        places = [(*path, index) for index in range(len(value))]
    if not value:
        faults.add(path, "there is no asset", allowed="[s3://bucket/a, s3://bucket/b]", code="value")
    for item, place in zip(value, places, strict=True):
        if isinstance(item, list) or (isinstance(item, dict) and ("any" in item or "all" in item)):
            _condition(item, place, faults)
        elif (problem := asset_fault(item)) is not None:
            faults.add(place, f"{item!r} is no asset", allowed=problem, code="type")


def _timetable(value: dict[str, Any], path: Path, faults: Faults) -> dict[str, Any] | None:
    for key in value:
        if key not in ("uses", "with"):
            faults.unknown_key((*path, key), ("uses", "with"))
    uses, arguments = value.get("uses"), value.get("with", {})
    if not isinstance(uses, str) or not _DOTTED.match(uses):
        faults.add(
            (*path, "uses"),
            "a timetable is named by its dotted path",
            allowed="such as airflow.timetables.trigger.CronTriggerTimetable",
            code="schedule",
        )
        return None
    if not isinstance(arguments, dict):
        faults.add((*path, "with"), "must be a mapping of arguments", code="type")
        return None
    if uses.rpartition(".")[2] == "AssetOrTimeSchedule":
        faults.add((*path, "uses"), "a timetable that takes objects cannot be written like this",
                   allowed="{assets: [...], time: ...}", code="schedule")  # fmt: skip
        return None
    return {"uses": uses, "with": arguments}


def cron_fault(text: str) -> str | None:
    """Return what is wrong with a cron text, or ``None``."""
    parts = text.lower().split()
    if len(parts) != len(_FIELDS):
        return f"it has {len(parts)} fields, not 5"
    for part, (name, low, high) in zip(parts, _FIELDS, strict=True):
        for item in part.split(","):
            if (problem := _item_fault(item, name, low, high)) is not None:
                return f"{name}: {problem}"
    return None


def _item_fault(item: str, name: str, low: int, high: int) -> str | None:
    if (item == "l" and name != "minute") or (
        name == "day of week" and re.fullmatch(r"(l[0-7]|[0-7a-z]+#[1-5])", item)
    ):
        return None
    match = _ITEM.match(item)
    if match is None:
        return f"{item!r} cannot be read"
    numbers = []
    for text in match.group(1, 2):
        if text is None:
            continue
        names = _NAMES.get(name, ())
        number = names.index(text) + low if text in names else int(text) if text.isdigit() else None
        if number is None or not low <= number <= high:
            return f"{text!r} is not between {low} and {high}"
        numbers.append(number)
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        return f"{item!r} ends before it starts"
    return None
