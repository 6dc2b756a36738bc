"""When a schedule starts its next runs."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from edgewright.spec.next_runs import next_runs

NOW = datetime.datetime(2026, 11, 21, 1, 0, tzinfo=datetime.UTC)
CRON = "airflow.timetables.trigger.CronTriggerTimetable"


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        ("0 3 * * 0", "2026-11-22T03:00:00Z"),
        ("0 1 * * *", "2026-11-21T01:00:00Z"),
        ("@daily", "2026-11-22T00:00:00Z"),
        ("@quarterly", "2027-01-01T00:00:00Z"),
        ({"uses": CRON, "with": {"cron": "0 3 * * *", "timezone": "Asia/Tokyo"}}, "2026-11-21T18:00:00Z"),
        ({"assets": ["s3://b/a"], "time": "@hourly"}, "2026-11-21T01:00:00Z"),
    ],
)
def test_times_are_told(schedule: Any, first: str) -> None:
    found = next_runs(schedule, NOW)
    assert found is not None
    assert found[0] == first
    assert len(found) == 3


@pytest.mark.parametrize("schedule", ["@once", "@continuous", {"uses": "my.Timetable", "with": {"cron": "0 0 * * *"}}])
def test_what_only_airflow_knows(schedule: Any) -> None:
    assert next_runs(schedule, NOW) is None


def test_no_time_is_no_run() -> None:
    assert next_runs(None, NOW) == []
    assert next_runs({"assets": ["s3://b/a"]}, NOW) == []


def test_the_start_and_the_end_count() -> None:
    start, end = datetime.datetime(2027, 1, 1), datetime.datetime(2027, 1, 2, 12)
    assert next_runs("@daily", NOW, start=start, end=end) == ["2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z"]
