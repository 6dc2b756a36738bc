"""What another language has no words for: said on top of what is rendered, or refused where it would mislead."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.errors import ConfigError
from edgewright.spec.pipeline import Pipeline


def refuse_mapping(pipeline: Pipeline, language: str) -> None:
    """Refuse a pipeline that runs tasks once for each item: without that it would be another pipeline.

    Raises:
        ConfigError: a task or a group has ``for_each:`` or ``search:``.
    """
    mapped = [task.id for task in pipeline.tasks if task.for_each is not None]
    mapped += [group.id for group in pipeline.groups if group.for_each is not None]
    if mapped:
        raise ConfigError(
            f"{language} has no words for for_each: or search: of {', '.join(sorted(mapped))}",
            where=pipeline.file.name,
            hint="dag_from_yaml() of edgewright.factory puts the YAML itself into a Python module",
        )


def left_out(pipeline: Pipeline) -> list[str]:
    """Return what neither Airflow's YAML nor a plain Dag of ours says of a pipeline, a few words each."""
    found = [key for key in ("triggers", "profiles", "notify") if getattr(pipeline, key)]
    if pipeline.takes_events:
        found.append("the last task, which settles what a run took")
    if isinstance(pipeline.schedule, Mapping) and "assets" in pipeline.schedule:
        found.append("schedule.assets")
    found += [f"group {group.id} (its tasks keep their full ids)" for group in pipeline.groups]
    found += [f"{task.id}.setup" for task in pipeline.tasks if task.setup]
    found += [f"{task.id}.teardown" for task in pipeline.tasks if task.teardown is not None]
    return found
