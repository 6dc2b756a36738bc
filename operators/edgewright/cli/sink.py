"""``edgewright sink``: store what comes through Kafka."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.background import Lines, until_interrupted
from edgewright.cli.output import count, print_json
from edgewright.errors import ConfigError

if TYPE_CHECKING:
    from edgewright.streams.cassandra import Layout
    from edgewright.streams.sink import Fields, Progress

_AGE = re.compile(r"(\d+)([hdw])")
_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def _keep(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int:
    if value is None:
        return 0
    match = _AGE.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no age: write 12h, 30d or 8w")
    return int(match[1]) * _SECONDS[match[2]]


@click.group("sink")
def command() -> None:
    """Store what comes through Kafka."""


@command.command("cassandra")
@click.option("--from", "source", required=True, metavar="kafka://HOST:PORT/TOPIC", help="Brokers and a topic.")
@click.option("--topic", "topics", multiple=True, help="More topics; ^... is a pattern. May be given several times.")
@click.option("--to", "target", required=True, metavar="cassandra://HOST:PORT/KEYSPACE.TABLE", help="Where rows go.")
@click.option("--pipeline", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Take its schema.")
@click.option("--schema", metavar="FILE.py:NAME", help="A pandera schema: the columns, and which must be there.")
@click.option("--id", "id_field", default="request_id", show_default=True, help="Field that makes a message unique.")
@click.option("--time", "time_field", default="time", show_default=True, help="Field with a message's time.")
@click.option("--bucket", type=click.Choice(["hour", "day"]), default="hour", show_default=True, help="One partition.")
@click.option("--shards", type=click.IntRange(1, 1024), default=4, show_default=True, help="Partitions of a bucket.")
@click.option("--keep", callback=_keep, metavar="30d", help="Forget rows after that time. Default: never.")
@click.option("--replication", type=click.IntRange(1), default=1, show_default=True, help="Copies, in a new keyspace.")
@click.option("--group", help="Consumer group. Default: edgewright-sink-KEYSPACE-TABLE.")
@click.option("--dead-letters", metavar="TOPIC", help="Topic for what cannot be stored. Default: TOPIC-dead.")
@click.option("--once", is_flag=True, help="End when everything is stored that was there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def cassandra(
    source: str,
    topics: tuple[str, ...],
    target: str,
    pipeline: Path | None,
    schema: str | None,
    id_field: str,
    time_field: str,
    bucket: str,
    shards: int,
    keep: int,
    replication: int,
    group: str | None,
    dead_letters: str | None,
    once: bool,
    as_json: bool,
) -> None:
    """Store Kafka's messages in Cassandra: made for the feature log of the prediction service, good for any JSON.

    Delivery is at least once, and a message that comes twice is stored once. Without --schema or --pipeline the columns
    are those of the feature log, or of the messages as they come. Ctrl-C ends after the round under way.
    """
    from edgewright.streams.cassandra import Layout
    from edgewright.streams.sink import Fields

    from_schema = _schema_columns(pipeline, schema)
    columns, required = from_schema or (None, ())
    layout = Layout(bucket, shards, keep, replication)
    progress = _run(
        source, topics, target, group, dead_letters, layout,
        Fields(id_field, time_field, columns, required), once=once, as_json=as_json,
    )  # fmt: skip
    if as_json:
        print_json(progress.as_dict())
    else:
        click.echo(_line(progress))


@command.command("fleet")
@click.option("--from", "source", required=True, metavar="kafka://HOST:PORT/TOPIC", help="Where nodes report.")
@click.option("--group", default="edgewright-fleet", show_default=True, help="Consumer group.")
@click.option("--once", is_flag=True, help="End when everything is read that was there.")
@click.option("--registry/--no-registry", default=True, show_default=True,
              help="Whether versions in the model registry get a tag for each node that runs them.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def fleet(source: str, group: str, once: bool, registry: bool, as_json: bool) -> None:
    """Keep the last state of every node, from its reports, in the artifact store: `edgewright fleet` shows them.

    Versions in the model registry get a tag for each node that runs them, brought up to date twice a minute at most.

    Delivery is at least once, and a report that comes twice changes nothing. Ctrl-C ends after the round under way.
    """
    from edgewright.artifacts import ArtifactStore
    from edgewright.installation import Installation
    from edgewright.registry import Registry
    from edgewright.streams.addresses import kafka_address
    from edgewright.streams.fleet import Fleet, FleetSink
    from edgewright.streams.fleet_registry import RegistryRows

    kafka, last, installation = kafka_address(source), Lines(), Installation.load()
    store = ArtifactStore(installation.store)
    states = Fleet(store)
    rows = RegistryRows(Registry(installation.tracking_uri), states, last.say) if registry else None
    sink = FleetSink(kafka.settings, [kafka.topic], group, states, last.say, rows)
    click.echo(f"{kafka.shown} -> {store.root}/fleet (group {group})", err=True)
    until_interrupted(lambda: sink.run(once=once), sink.stop, "finishing the round under way")
    if as_json:
        print_json(sink.counts.as_dict())
    else:
        counts = sink.counts
        click.echo(
            f"{count(counts.reports, 'report')} kept, {counts.repeated} repeated, {counts.unreadable} unreadable"
        )


def _run(
    source: str,
    topics: tuple[str, ...],
    target: str,
    group: str | None,
    dead_letters: str | None,
    layout: Layout,
    fields: Fields,
    *,
    once: bool,
    as_json: bool,
) -> Progress:
    from dataclasses import replace

    from edgewright.artifacts import ArtifactStore
    from edgewright.artifacts.erasures import Register
    from edgewright.installation import Installation
    from edgewright.streams.addresses import cassandra_address, kafka_address
    from edgewright.streams.cassandra import Connection, Table, Writer
    from edgewright.streams.sink import FEATURE_LOG_COLUMNS, Sink

    kafka, address = kafka_address(source), cassandra_address(target)
    if not address.table:
        address = replace(address, table=re.sub(r"[^A-Za-z0-9_]", "_", kafka.topic).lower())
    name = group or f"edgewright-sink-{address.keyspace}-{address.table}"
    last = Lines()
    left_out = Register(ArtifactStore(Installation.load().store), last.say)
    with Connection(address) as session:
        table = Table(session, address, layout, fields.columns or FEATURE_LOG_COLUMNS)
        writer = Writer(table, lambda: sink.stopping(), last.say, left_out)
        sink = Sink(
            kafka.settings, [kafka.topic, *topics], name, writer,
            dead_letters=dead_letters or f"{kafka.topic}-dead", fields=fields, say=last.say,
        )  # fmt: skip
        click.echo(f"{kafka.shown} -> {address.shown} (group {name})", err=True)

        def report(progress: Progress) -> None:
            if not as_json:
                last.report(lambda: _line(progress))

        until_interrupted(lambda: sink.run(once=once, report=report), sink.stop, "finishing the round under way")
        return sink.progress


def _line(progress: Progress) -> str:
    rate = f", {progress.rows / progress.seconds:,.0f} a second" if progress.rows > progress.seconds > 1 else ""
    text = f"{count(progress.rows, 'row')} stored{rate}, {count(progress.rejected, 'dead letter')}"
    return text + "".join(f"\n  {number} x {reason}" for reason, number in sorted(progress.reasons.items())[:5])


def _schema_columns(pipeline: Path | None, schema: str | None) -> tuple[dict[str, str], tuple[str, ...]] | None:
    """Return columns with their types, and those that must be there, from a pandera schema."""
    if pipeline is not None and schema is not None:
        raise click.UsageError("--pipeline and --schema exclude each other")
    folder = pipeline.parent if pipeline else Path.cwd()
    if pipeline is not None:
        schema = _schema_of(pipeline)
    if schema is None:
        return None
    from edgewright.steps.table_columns import columns_of

    return columns_of(folder, schema)


def _schema_of(pipeline: Path) -> str:
    from edgewright.spec import load_pipeline

    for task in load_pipeline(pipeline).tasks:
        if isinstance(task.config.get("schema"), str):
            return str(task.config["schema"])
    raise ConfigError("no task of this pipeline names a schema", where=str(pipeline), hint="--schema FILE.py:NAME")
