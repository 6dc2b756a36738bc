"""Assets and schedules of a document as Airflow's own objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset, AssetAlias, AssetAll, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable

from edgewright.factory.arguments import coerced, dotted


def asset(value: Any) -> Any:
    """Return an asset: its URI or name as text, ``{name, uri, group, extra}``, or ``{alias: NAME}``."""
    if isinstance(value, str):
        return Asset(value)
    if "alias" in value:
        return AssetAlias(**{"name": value["alias"], **{key: value[key] for key in ("group",) if key in value}})
    return Asset(**value)


def assets(values: list[Any]) -> list[Any]:
    """Return the assets of ``inlets:`` or ``outlets:``."""
    return [asset(value) for value in values]


def condition(value: Any) -> Any:
    """Return when assets start a Dag: one of them, ``{any: [...]}``, ``{all: [...]}``; a list means all."""
    if isinstance(value, list):
        value = {"all": value}
    if isinstance(value, Mapping):
        for name, kind in (("any", AssetAny), ("all", AssetAll)):
            if name in value:
                return kind(*(condition(item) for item in value[name]))
    return asset(value)


def schedule_of(schedule: Any) -> Any:
    """Return a document's schedule: text, a timetable by its dotted path, assets, or assets beside a time.

    Raises:
        ConfigError: there is no such timetable, or it refuses its arguments.
    """
    if not isinstance(schedule, Mapping):
        return schedule
    if "uses" in schedule:
        return _timetable(schedule)
    assets = condition(schedule["assets"])
    if (time := schedule.get("time")) is None:
        return assets
    timetable = _timetable(time) if isinstance(time, Mapping) else _cron(time)
    return AssetOrTimeSchedule(timetable=timetable, assets=assets)


def _timetable(schedule: Mapping[str, Any]) -> Any:
    timetable = dotted(schedule["uses"], "schedule.uses")
    return timetable(**coerced(timetable, schedule.get("with") or {}))


def _cron(text: str) -> Any:
    return CronTriggerTimetable(text, timezone="UTC")
