"""A validated pipeline as JSON, so that a worker need not read and check YAML that was checked before.

Whoever keeps one keeps its sha256 apart from it; what was changed in between is not taken. The text is not in it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewright import __version__
from edgewright.spec.documents import documents
from edgewright.spec.markers import decode, encode
from edgewright.spec.pipeline import Best, ForEach, Group, Pipeline, Position, Task

#: Raised when the same pipeline would be written differently.
_FORMAT = 3
_KEPT = ("dag_id", "digest", "schedule", "params", "triggers", "profiles", "notify", "environment")
_TASK = ("id", "uses", "needs", "is_step", "is_handler", "profile", "preferred", "group", "setup", "teardown")


def dump(pipelines: Sequence[Pipeline]) -> tuple[bytes, str]:
    """Return the pipelines of one file as JSON, and its sha256."""
    document = {"version": [_FORMAT, __version__], "pipelines": [_pipeline(pipeline) for pipeline in pipelines]}
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return data, hashlib.sha256(data).hexdigest()


def load(data: bytes, sha256: str, text: str, file: Path) -> list[Pipeline] | None:
    """Return the pipelines, or ``None`` where the JSON is not what was kept, or another release wrote it.

    Args:
        data: The JSON.
        sha256: What was kept beside it.
        text: The file's text.
        file: The file.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        return None
    document = json.loads(data)
    if document["version"] != [_FORMAT, __version__]:
        return None
    entries = document["pipelines"]
    texts = [text] if len(entries) == 1 else [part.lstrip("\n") for part in documents(text)]
    return [_read_pipeline(entry, part, file) for entry, part in zip(entries, texts, strict=True)]


def _pipeline(pipeline: Pipeline) -> dict[str, Any]:
    return {
        **{name: getattr(pipeline, name) for name in _KEPT},
        "arguments": _plain(pipeline.arguments),
        "tasks": [_task(task) for task in pipeline.tasks],
        "groups": [_group(group) for group in pipeline.groups],
    }


def _read_pipeline(entry: dict[str, Any], text: str, file: Path) -> Pipeline:
    return Pipeline(
        file=file,
        text=text,
        arguments=_typed(entry["arguments"]),
        tasks=tuple(map(_read_task, entry["tasks"])),
        groups=tuple(map(_read_group, entry["groups"])),
        **{
            **{name: entry[name] for name in _KEPT},
            "triggers": tuple(entry["triggers"]),
            "notify": tuple(entry["notify"]),
        },
    )


def _task(task: Task) -> dict[str, Any]:
    return {
        **{name: getattr(task, name) for name in _TASK},
        "config": encode(task.config),
        "arguments": _plain(task.arguments),
        "position": [task.position.line, task.position.column, task.position.end_column],
        "mapping": _mapping(task.for_each, task.best),
    }


def _read_task(entry: dict[str, Any]) -> Task:
    for_each, best = _read_mapping(entry["mapping"])
    teardown = entry["teardown"]
    return Task(
        id=entry["id"],
        uses=entry["uses"],
        needs=tuple(entry["needs"]),
        config={name: decode(value) for name, value in entry["config"].items()},
        arguments=_typed(entry["arguments"]),
        is_step=entry["is_step"],
        is_handler=entry["is_handler"],
        profile=entry["profile"],
        position=Position(*entry["position"]),
        preferred=entry["preferred"],
        group=entry["group"],
        for_each=for_each,
        best=best,
        setup=entry["setup"],
        teardown=None if teardown is None else tuple(teardown),
    )


def _group(group: Group) -> dict[str, Any]:
    position = [group.position.line, group.position.column, group.position.end_column]
    mapping = _mapping(group.for_each, group.best)
    return {"id": group.id, "parent": group.parent, "tooltip": group.tooltip, "position": position, "mapping": mapping}


def _read_group(entry: dict[str, Any]) -> Group:
    for_each, best = _read_mapping(entry["mapping"])
    return Group(entry["id"], entry["parent"], entry["tooltip"], for_each, best, Position(*entry["position"]))


def _mapping(for_each: ForEach | None, best: Best | None) -> Any:
    if for_each is None:
        return None
    chosen = None if best is None else [best.metric, best.mode, best.task]
    return [for_each.items, encode(for_each.source), chosen]


def _read_mapping(entry: Any) -> tuple[ForEach | None, Best | None]:
    if entry is None:
        return None, None
    items, source, best = entry
    return ForEach(None if items is None else tuple(items), decode(source)), None if best is None else Best(*best)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with times and durations as ``["time", ...]`` and ``["seconds", ...]`` beside the plain ones."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, datetime.timedelta):
            found[name] = ["seconds", value.days, value.seconds, value.microseconds]
        elif isinstance(value, datetime.datetime):
            found[name] = ["time", value.isoformat()]
        else:
            found[name] = ["plain", value]
    return found


def _typed(entries: Mapping[str, list[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (kind, *value) in entries.items():
        if kind == "seconds":
            found[name] = datetime.timedelta(*value)
        else:
            found[name] = datetime.datetime.fromisoformat(value[0]) if kind == "time" else value[0]
    return found
