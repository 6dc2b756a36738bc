"""What is right part by part, and what Airflow refuses when it builds the Dag: found here, with its place.

Each rule names where Airflow has it; Airflow 3.3 and 3.4 have the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from edgewright.spec.faults import Faults, Path
from edgewright.spec.pipeline import Group, Pipeline, Task

#: What the id of the task ends with that lists the items of another one.
ITEMS_SUFFIX = "__items"
CONTINUOUS = ("@continuous", "airflow.timetables.simple.ContinuousTimetable")
_LONGEST_TAG = 100
#: Trigger rules of a Dag with fail_fast (airflow.sdk.exceptions.FailFastDagInvalidTriggerRule).
_FAIL_FAST_RULES = (None, "all_success", "all_done_setup_success")


def is_continuous(schedule: Any) -> bool:
    """Whether a schedule starts the next run when the last one ends; Airflow takes it with one run at a time only."""
    return (schedule.get("uses") if isinstance(schedule, Mapping) else schedule) in CONTINUOUS


def check_rules(pipeline: Pipeline, places: Mapping[str, Path], faults: Faults) -> None:
    """Note what Airflow would refuse.

    Args:
        pipeline: The whole pipeline.
        places: Where each task stands, by its id.
        faults: Where to note.
    """
    _check_dates(pipeline.arguments, (), faults)
    _check_schedule(pipeline, faults)
    _check_labels(pipeline.arguments, faults)
    _check_listers([*pipeline.tasks, *pipeline.groups], places, faults)
    setups = {task.id for task in pipeline.tasks if task.setup}
    for task in pipeline.tasks:
        _check_task(task, places[task.id], setups, fail_fast=pipeline.arguments.get("fail_fast") is True, faults=faults)


def _check_dates(arguments: Mapping[str, Any], path: Path, faults: Faults) -> None:
    start, end = arguments.get("start_date"), arguments.get("end_date")
    if start is not None and end is not None and end < start:
        faults.add((*path, "end_date"), "it ends before it starts", allowed="a time after start_date:",
                   code="combination")  # fmt: skip


def _check_schedule(pipeline: Pipeline, faults: Faults) -> None:
    """The validators of airflow.sdk.DAG for catchup, max_active_runs and params."""
    scheduled = pipeline.schedule is not None
    arguments = pipeline.arguments
    if scheduled and arguments.get("catchup") is True and "start_date" not in arguments:
        faults.add(("catchup",), "there is no moment to catch up from", allowed="write start_date:",
                   code="combination", key=True)  # fmt: skip
    if is_continuous(pipeline.schedule) and arguments.get("max_active_runs", 1) > 1:
        faults.add(("max_active_runs",), "a continuous schedule has one run at a time", allowed="1, or leave it out",
                   code="combination")  # fmt: skip
    if not scheduled and not pipeline.triggers:
        return
    for name, schema in pipeline.params.items():
        if "default" not in schema:
            starter = "schedule" if scheduled else "triggers"
            faults.add(("params", name), f"{starter}: starts runs without anybody to give {name}",
                       allowed="write default:", code="combination", key=True)  # fmt: skip


def _check_labels(arguments: Mapping[str, Any], faults: Faults) -> None:
    for index, tag in enumerate(arguments.get("tags", ())):
        if len(tag) > _LONGEST_TAG:
            faults.add(("tags", index), f"a tag of {len(tag)} characters", allowed=f"at most {_LONGEST_TAG}",
                       code="value")  # fmt: skip
    for owner, link in (arguments.get("owner_links") or {}).items():
        if not _is_link(link):
            faults.add(("owner_links", owner), f"{link!r} is no address", allowed="https://..., or mailto:NAME@HOST",
                       code="value")  # fmt: skip


def _is_link(link: Any) -> bool:
    try:
        parts = urlsplit(link) if isinstance(link, str) else None
    except ValueError:
        return False
    return parts is not None and bool(parts.path if parts.scheme == "mailto" else parts.scheme and parts.netloc)


def _check_listers(entries: Iterable[Task | Group], places: Mapping[str, Path], faults: Faults) -> None:
    """A mapped task whose items only a run knows has a task beside it that lists them."""
    for entry in entries:
        lister = f"{entry.id}{ITEMS_SUFFIX}"
        if entry.for_each is not None and entry.for_each.items is None and lister in places:
            faults.add((*places[lister], "id"), f"{lister!r} is the id of the task that lists the items of {entry.id}",
                       allowed="another id", code="duplicate-id")  # fmt: skip


def _check_task(task: Task, path: Path, setups: set[str], *, fail_fast: bool, faults: Faults) -> None:
    _check_dates(task.arguments, path, faults)
    rule = task.arguments.get("trigger_rule")
    place = (*path, "trigger_rule")
    if task.setup and task.teardown is not None:
        faults.add((*path, "teardown"), "a task sets up or cleans up, not both", allowed="two tasks",
                   code="combination", key=True)  # fmt: skip
    if fail_fast and rule not in _FAIL_FAST_RULES:
        faults.add(place, f"{rule} cannot stand beside fail_fast: true", allowed="all_success, or no fail_fast:",
                   code="combination")  # fmt: skip
    elif rule not in (None, "all_success") and task.teardown is None and setups.intersection(task.needs):
        before = ", ".join(name for name in task.needs if name in setups)
        faults.add(place, f"{rule} cannot stand after a setup task ({before})", allowed="all_success",
                   code="combination")  # fmt: skip
