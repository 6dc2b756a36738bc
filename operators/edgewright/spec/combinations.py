"""Tasks that are right one by one and cannot work together, seen before anything runs."""

from __future__ import annotations

from typing import Any

from edgewright.spec.faults import Faults, Path
from edgewright.spec.pipeline import Reference, Task
from edgewright.spec.steps.target_options import FOREIGN

#: Steps that hand on the dataset of their ``data:`` with its label and parts.
_PASSING_ON = frozenset({"validate", "transform"})
_NEEDS_LABEL = frozenset({"train", "evaluate", "quantize"})
_NEEDS_PART = frozenset({"evaluate", "quantize"})


def check_combinations(tasks: list[tuple[Path, Task]], faults: Faults) -> None:
    """Note tasks that take a dataset which lacks what they need.

    Only what the text says for certain counts: a value that a template fills may be anything.
    """
    by_id = {task.id: (path, task) for path, task in tasks}
    _check_warm_starts(tasks, faults)
    _check_waits(tasks, by_id, faults)
    _check_images(tasks, faults)
    for path, task in tasks:
        if task.uses not in _NEEDS_LABEL:
            continue
        source = _ingest_of(task, by_id)
        if source is None or not isinstance(source.config.get("source"), str):
            continue
        place = (*path, "with", "data")
        if source.config.get("label") is None:
            faults.add(
                place,
                f"{task.uses} needs a label, and task {source.id} names none",
                allowed=f"write label: COLUMN in the with: of {source.id}",
                code="combination",
            )
        if task.uses in _NEEDS_PART and source.config.get("split") is None and source.config.get("holdout") is None:
            faults.add(
                place,
                f"{task.uses} measures on test or holdout, and the dataset of task {source.id} has neither",
                allowed=f"write split: {{test: 0.25}} or holdout: FILE in the with: of {source.id}",
                code="combination",
            )


def _check_warm_starts(tasks: list[tuple[Path, Task]], faults: Faults) -> None:
    """Note tasks that go on from a registered model in a pipeline that registers none."""
    if any(task.uses == "publish" for _, task in tasks):
        return
    for path, task in tasks:
        if task.uses == "train" and task.config.get("warm_start"):
            faults.add(
                (*path, "with", "warm_start"),
                "training goes on from the model that this pipeline publishes, and it publishes none",
                allowed="add a publish task, or leave warm_start out",
                code="combination",
            )


def _check_images(tasks: list[tuple[Path, Task]], faults: Faults) -> None:
    """Note tasks that compile in a vendor's image and name none."""
    for path, task in tasks:
        target = task.config.get("target")
        if task.uses == "quantize" and target in FOREIGN and {task.profile, task.preferred} <= {None, "local"}:
            faults.add(
                (*path, "with", "target"),
                f"{target} is compiled in its maker's image, and this task runs in ours",
                allowed="profile: NAME, one with foreign: true and that image",
                code="combination",
            )


def _check_waits(tasks: list[tuple[Path, Task]], by_id: dict[str, tuple[Path, Task]], faults: Faults) -> None:
    """Note tasks that take what another one waited for as if it had started the run."""
    for path, task in tasks:
        source = task.config.get("source")
        if task.uses != "ingest" or not isinstance(source, Reference) or source.task not in by_id:
            continue
        if by_id[source.task][1].uses == "wait" and task.config.get("on_event", "ignore") != "ignore":
            faults.add(
                (*path, "with", "on_event"),
                "on_event is for batches that start a run, and here a task has waited for the batch",
                allowed="leave it out",
                code="combination",
            )


def _ingest_of(task: Task, by_id: dict[str, tuple[Path, Task]]) -> Task | None:
    """Follow ``data:`` back to the task that reads the data in."""
    for _ in range(len(by_id)):
        data: Any = task.config.get("data")
        if not isinstance(data, Reference) or data.task not in by_id:
            return None
        task = by_id[data.task][1]
        if task.uses == "ingest":
            return task
        if task.uses not in _PASSING_ON or data.key not in (None, "dataset"):
            return None
    return None
