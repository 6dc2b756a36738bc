"""When a schedule starts its next runs, without Airflow: what a change of it shifts."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

#: Presets that Airflow reads as cron; the others have no times of their own.
_CRON = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
#: Timetables of Airflow that are a cron text and a time zone.
_CRON_TIMETABLES = ("CronTriggerTimetable", "CronDataIntervalTimetable")


def next_runs(
    schedule: Any,
    now: datetime.datetime,
    *,
    start: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
    count: int = 3,
) -> list[str] | None:
    """Return when the next runs start, in UTC by ISO 8601; none at all is an empty list.

    Args:
        schedule: A pipeline's ``schedule``.
        now: The moment to look from, with a time zone.
        start: The pipeline's ``start_date``.
        end: Its ``end_date``.
        count: How many to return at most.

    Returns:
        ``None`` where only Airflow knows: a timetable that is no cron text, ``@once``, ``@continuous``.
    """
    if isinstance(schedule, dict) and "assets" in schedule:
        schedule = schedule.get("time")
    if schedule is None:
        return []
    zone: datetime.tzinfo = datetime.UTC
    if isinstance(schedule, dict):
        found = _timetable(schedule)
        if found is None:
            return None
        schedule, zone = found
    cron = _CRON.get(schedule, schedule)
    if cron.startswith("@"):
        return None
    return _times(cron, zone, max(now, _aware(start)) if start else now, _aware(end) if end else None, count)


def _timetable(schedule: dict[str, Any]) -> tuple[str, datetime.tzinfo] | None:
    """Return the cron text and the time zone of a timetable that is no more than these."""
    arguments = schedule.get("with") or {}
    cron = arguments.get("cron")
    known = str(schedule.get("uses")).rpartition(".")[2] in _CRON_TIMETABLES
    if not known or not isinstance(cron, str):
        return None
    try:
        return cron, zoneinfo.ZoneInfo(arguments.get("timezone", "UTC"))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError):
        return None


def _aware(moment: datetime.datetime) -> datetime.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _times(
    cron: str, zone: datetime.tzinfo, after: datetime.datetime, end: datetime.datetime | None, count: int
) -> list[str] | None:
    from croniter import CroniterError, croniter  # type: ignore[import-untyped]

    try:
        # a run that falls on the very start belongs to it
        times = croniter(
            cron, (after - datetime.timedelta(microseconds=1)).astimezone(zone), ret_type=datetime.datetime
        )
        found = [times.get_next().astimezone(datetime.UTC) for _ in range(count)]
    except (CroniterError, ValueError):
        return None
    return [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in found if end is None or moment <= end]
