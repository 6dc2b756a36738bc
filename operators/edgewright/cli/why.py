"""``edgewright why``: which part of a task's cache key changed since the run before, or what was reused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from edgewright.artifacts import ArtifactStore
    from edgewright.cli.runs import TaskRun

#: What the parts of a key are called when people are told about them.
PARTS = {
    "step": "step",
    "step_version": "version of the step",
    "config": "config",
    "inputs": "input",
    "code": "code",
    "environment": "environment",
    "image": "image",
    "state": "state",
}


def complete_run(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete run ids from the artifact store."""
    from click.shell_completion import CompletionItem

    names = sorted({task.run_id for task in _tasks(ctx)}, reverse=True)
    return [CompletionItem(name) for name in ("latest", *names) if name.startswith(incomplete)]


def complete_task(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the tasks of the run that stands on the command line."""
    from click.shell_completion import CompletionItem

    run = ctx.params.get("run")
    names = sorted({task.task_id for task in _tasks(ctx) if run in (None, "latest", task.run_id)})
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _tasks(ctx: click.Context) -> list[TaskRun]:
    from edgewright.cli.runs import list_task_runs

    return list_task_runs(_open_store(ctx.params.get("store")), ctx.params.get("dag"))


def _open_store(root: str | None) -> ArtifactStore:
    from edgewright.artifacts import ArtifactStore
    from edgewright.installation import Installation

    return ArtifactStore(root or Installation.load().store)


@click.command("why")
@click.argument("run", shell_complete=complete_run)
@click.argument("task", shell_complete=complete_task)
@click.option("--against", metavar="RUN", help="Compare with this run instead of the one before.")
@click.option("--dag", metavar="DAG_ID", help="The pipeline, where several have such a run.")
@click.option("--store", metavar="URI", help="Artifact store. Default: the installation's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, task: str, against: str | None, dag: str | None, store: str | None, as_json: bool) -> None:
    """Say why a task ran again, or what was reused.

    RUN is a run id, or "latest". A task runs again when any part of its cache key changes: its config, its inputs,
    your code, the libraries, or what it reads elsewhere.
    """
    from edgewright.cli.output import print_json

    document = explain(_open_store(store), run, task, against=against, dag_id=dag)
    if as_json:
        print_json(document)
    else:
        click.echo(explanation_text(document))


def explain(
    store: ArtifactStore, run_id: str, task_id: str, *, against: str | None = None, dag_id: str | None = None
) -> dict[str, Any]:
    """Return how the cache answered for a task, and how its key differs from an earlier run's.

    Args:
        store: The artifact store.
        run_id: A run id, or ``latest``.
        task_id: The task.
        against: Run to compare with; default: the one before in which the task had a key.
        dag_id: The pipeline, where several have such a run.

    Raises:
        NotFound: there is no such run or task.
    """
    from edgewright.cli.runs import find_task_run, list_task_runs
    from edgewright.steps.cache import differences

    tasks = list_task_runs(store, dag_id)
    task = find_task_run(tasks, store, run_id, task_id)
    result = task.read(store, "result")
    key = task.read(store, "key")
    earlier = _earlier(tasks, store, task, result, against)
    changes: list[dict[str, Any]] = []
    if earlier is not None and key:
        found = differences(earlier.read(store, "key"), key)
        for place, old, new in found:
            changes += _in_words(store, tasks, task, place, old, new)
    cache = result["cache"]
    return {
        "dag_id": task.dag_id,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "step": result["step"],
        "state": result["state"],
        "key": cache["key"],
        "cached": cache["hit"],
        "reused_from": cache["reused_from"],
        "reason": cache["reason"],
        "compared_with": None if earlier is None else earlier.run_id,
        "earlier_state": None if earlier is None else earlier.read(store, "result").get("state"),
        "changes": changes,
    }


def _earlier(
    tasks: list[TaskRun], store: ArtifactStore, task: TaskRun, result: dict[str, Any], against: str | None
) -> TaskRun | None:
    from edgewright.cli.runs import find_task_run, order

    same = [other for other in tasks if other.dag_id == task.dag_id]
    if against is not None:
        return find_task_run(same, store, against, task.task_id)
    others = [other for other in same if other.task_id == task.task_id and other != task]
    before = [other for other, found in order(store, others) if found.get("started", "") < result["started"]]
    return next((other for other in reversed(before) if other.read(store, "key")), None)


def _in_words(
    store: ArtifactStore, tasks: list[TaskRun], task: TaskRun, place: str, old: Any, new: Any
) -> list[dict[str, Any]]:
    """Return one or more sentences about one difference."""
    part, _, rest = place.partition(".")
    if part == "environment" and rest == "packages":
        found = _package_changes(store, old, new)
        if found:
            return found
    change = {"part": part, "place": rest, "old": old, "new": new}
    return [{**change, "text": _sentence(store, tasks, task, part, rest, old, new)}]


def _sentence(
    store: ArtifactStore, tasks: list[TaskRun], task: TaskRun, part: str, rest: str, old: Any, new: Any
) -> str:
    name = PARTS.get(part, part)
    if part == "code":
        verb = "is new" if old is None else "was removed" if new is None else "changed"
        return f"{name}: {rest} {verb}"
    if part == "inputs":
        maker = _maker(store, tasks, task, new)
        by = f" (made by task {maker}: edgewright why {task.run_id} {maker})" if maker else ""
        return f"{name}: {rest} changed, {_short(old)} -> {_short(new)}{by}"
    return f"{name}{' ' if rest else ''}{rest}: {_short(old)} -> {_short(new)}"


def _maker(store: ArtifactStore, tasks: list[TaskRun], task: TaskRun, digest: Any) -> str | None:
    """Return the task of the same run that made an artifact."""
    for other in tasks:
        if (other.dag_id, other.run_id) == (task.dag_id, task.run_id) and other != task:
            outputs = other.read(store, "result").get("outputs", {})
            if any(ref["sha256"] == digest for ref in outputs.values()):
                return other.task_id
    return None


def _package_changes(store: ArtifactStore, old: Any, new: Any) -> list[dict[str, Any]]:
    from edgewright.steps.cache import differences

    before, after = (store.read_json(f"environments/{digest}.json") for digest in (old, new))
    if before is None or after is None:
        return []
    return [
        {
            "part": "environment", "place": name, "old": was, "new": now,
            "text": f"environment: {name} {was or 'not installed'} -> {now or 'not installed'}",
        }
        for name, was, now in differences(before, after)
    ]  # fmt: skip


def _short(value: Any) -> str:
    """Return a value for people: digests by their first twelve digits, nothing as ``none``."""
    import json

    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(text) == 64 and all(digit in "0123456789abcdef" for digit in text):
        return text[:12]
    return text if len(text) <= 100 else f"{text[:97]}..."


def explanation_text(document: dict[str, Any]) -> str:
    """Return an explanation for people."""
    name = f"{document['dag_id']}  {document['run_id']}  {document['task_id']} ({document['step']})"
    lines = [f"{name}: {_verdict(document)}"]
    if document["compared_with"] is None:
        if document["key"] and not document["cached"]:
            lines.append("  there is no earlier run of this task to compare with")
        return "\n".join(lines)
    if document["changes"]:
        lines.append(f"  changed since {document['compared_with']}:")
        lines += [f"    {change['text']}" for change in document["changes"]]
    elif document["key"] and not document["cached"]:
        state = document["earlier_state"]
        ended = f", which ended {state}" if state not in (None, "success") else ""
        lines.append(f"  its key is the same as in {document['compared_with']}{ended}")
    return "\n".join(lines)


def _verdict(document: dict[str, Any]) -> str:
    if document["cached"]:
        source = document["reused_from"]
        where = source["run_id"] + (f", task {source['task_id']}" if source["task_id"] != document["task_id"] else "")
        return f"reused from {where}; nothing that matters changed since then"
    reason = document["reason"]
    return f"ran: {reason}" if reason else "ran"
