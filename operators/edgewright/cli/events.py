"""``edgewright events``: what event sources brought, what became of it, and how to start it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.output import print_json
from edgewright.errors import NotFound

if TYPE_CHECKING:
    from edgewright.artifacts import ArtifactStore
    from edgewright.streams.batches import Batch, BatchLog

_STORE = click.option("--store", "root", metavar="URI", help="Artifact store. Default: the installation's.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_STATES = ("pending", "claimed", "dispatched", "waiting", "failed", "done")


@click.group("events")
def command() -> None:
    """Look at batches of events, and start them again.

    A batch is pending until a run was started for it (dispatched), and done or failed when that has ended. One that
    brought too little is waiting for the next batch.
    """


@command.command("list")
@click.argument("dag_id", metavar="DAG")
@click.option("--state", type=click.Choice(_STATES), help="Only batches in this state.")
@click.option("--last", type=click.IntRange(min=1), default=50, show_default=True, help="So many of each source.")
@_STORE
@_JSON
def list_batches(dag_id: str, state: str | None, last: int, root: str | None, as_json: bool) -> None:
    """List the batches of DAG, the newest first."""
    rows = [row for log in _logs(dag_id, root) for row in _rows(log, state, last)]
    if as_json:
        print_json({"dag_id": dag_id, "batches": rows})
        return
    if not rows:
        click.echo(f"no batches{f' that are {state}' if state else ''}")
    for row in rows:
        dead = f", {row['rejected']} unreadable" if row["rejected"] else ""
        click.echo(
            f"{row['source']}  {row['number']:>6}  {row['state']:<10}  {row['name']}  {row['messages']} messages{dead}"
        )


def _rows(log: BatchLog, state: str | None, last: int) -> Iterator[dict[str, Any]]:
    head = log.head()
    shown = 0
    for number in range(head.number if head else 0, 0, -1):
        found = log.state(number)
        if state is not None and found != state:
            continue
        batch = log.read(number)
        if batch is None:
            continue
        yield {
            "source": log.source, "number": number, "name": batch.name, "state": found, "messages": batch.messages,
            "rejected": batch.rejected, "created": batch.created,
        }  # fmt: skip
        shown += 1
        if shown == last:
            return


@command.command("show")
@click.argument("dag_id", metavar="DAG")
@click.argument("name", metavar="BATCH")
@click.option("--messages", type=click.IntRange(min=0), default=3, show_default=True, help="So many of its messages.")
@_STORE
@_JSON
def show(dag_id: str, name: str, messages: int, root: str | None, as_json: bool) -> None:
    """Show a batch of DAG by name: where it comes from, what became of it, its first messages and its dead letters."""
    log, batch = _find(dag_id, name, root)
    marks = {mark: found for mark in (*_STATES[1:], "released", "removed") if (found := log.marked(mark, batch.number))}
    document = {
        **asdict(batch), "source": log.source, "state": log.state(batch.number), "marks": marks,
        "first": list(_lines(log.store, batch.data, messages)) if not log.is_removed(batch.number) else [],
        "dead": list(_lines(log.store, log.dead_key(batch), messages)) if batch.rejected else [],
    }  # fmt: skip
    if as_json:
        print_json(document)
        return
    click.echo(f"{batch.name}: {document['state']}, {batch.messages} messages, {batch.size} bytes")
    for place, (first, last) in batch.ranges.items():
        click.echo(f"  {place}: offsets {first} to {last}")
    for mark, found in marks.items():
        click.echo(f"  {mark}: {json.dumps(found, ensure_ascii=False)}")
    for line in document["first"]:
        click.echo(f"  {json.dumps(line['value'], ensure_ascii=False)[:200]}")
    for line in document["dead"]:
        click.echo(f"  unreadable, offset {line['offset']}: {line['reason']}")


@command.command("replay")
@click.argument("dag_id", metavar="DAG")
@click.argument("names", metavar="[BATCH]...", nargs=-1)
@click.option("--failed", is_flag=True, help="All batches whose run failed.")
@click.option("--dead", is_flag=True, help="What could not be read: what can be read now becomes a batch of its own.")
@click.option("--force", is_flag=True, help="Also batches that are not failed: their messages are taken once more.")
@_STORE
def replay(dag_id: str, names: tuple[str, ...], failed: bool, dead: bool, force: bool, root: str | None) -> None:
    """Let batches of DAG start a run again, under a run id of their own.

    The companion Dag starts them at its next look (every few minutes, or with the next event); what a run has pulled by
    its schedule is for the next run. To try a failed run again as it was, clear its tasks in Airflow instead.
    """
    found = [_find(dag_id, name, root) for name in names]
    if failed:
        for log in _logs(dag_id, root):
            found += [(log, b) for n in log.numbers("failed") if log.state(n) == "failed" and (b := log.read(n))]
    if not found:
        raise NotFound("no batch to start again", hint="name some, or say --failed; edgewright events list shows them")
    for log, batch in found:
        if dead:
            from edgewright.streams.dead_letters import read_again

            made = read_again(log, batch, settings=_settings(batch))
            text = f"{made.messages} of {batch.rejected} messages are batch {made.name}" if made else "none can be read"
            click.echo(f"{batch.name}: {text}")
        else:
            log.release(batch.number, force=force)
            click.echo(f"{batch.name} starts again")


def _settings(batch: Batch) -> dict[str, Any] | None:
    """Return what reading a batch's messages again needs: Avro needs the schema registry of their connection."""
    if batch.details.get("format") != "avro":
        return None
    from edgewright.steps.connections import kafka_settings

    return kafka_settings(str(batch.details.get("connection", "kafka_default")))


def _logs(dag_id: str, root: str | None) -> list[BatchLog]:
    from edgewright.artifacts import ArtifactStore
    from edgewright.installation import Installation
    from edgewright.streams.batches import BatchLog, sources

    store = ArtifactStore(root or Installation.load().store)
    found = [BatchLog(store, dag_id, source) for source in sources(store, dag_id)]
    if not found:
        raise NotFound(f"no event source of {dag_id} has brought anything", where=store.root)
    return found


def _find(dag_id: str, name: str, root: str | None) -> tuple[BatchLog, Batch]:
    """Return a batch by name, or by number where there is one source."""
    logs = _logs(dag_id, root)
    for log in logs:
        head = log.head()
        if name.isdigit() and len(logs) == 1 and (batch := log.read(int(name))) is not None:
            return log, batch
        for number in range(head.number if head else 0, 0, -1):
            batch = log.read(number)
            if batch is not None and batch.name == name:
                return log, batch
    raise NotFound(f"{dag_id} has no batch {name}", hint=f"edgewright events list {dag_id}")


def _lines(store: ArtifactStore, key: str, most: int) -> Iterator[dict[str, Any]]:
    with store.open(key) as file:
        for _, line in zip(range(most), file, strict=False):
            yield json.loads(line)
