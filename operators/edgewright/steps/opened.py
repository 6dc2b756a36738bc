"""What ``ingest`` opens for an address: a file's table, or the rows of a database or a web service as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgewright.errors import DataError
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.addresses import shown
from edgewright.steps.context import StepContext
from edgewright.steps.increments import Increments
from edgewright.steps.row_segments import SegmentTable
from edgewright.steps.row_sources import Gathered, RowSource, gather, retried
from edgewright.steps.sources import obtain
from edgewright.steps.tables import Table, open_table

#: Opens what was fetched, with a configuration and types that are already decided; as often as one likes.
Opener = Callable[[IngestConfig, dict[str, str] | None], Table]


def open_source(address: str, config: IngestConfig, context: StepContext, name: str) -> Opener:
    """Fetch a source once; return what opens it as a table.

    Args:
        address: Where the data are.
        config: The step's configuration.
        context: The step.
        name: What a downloaded file is called.

    Raises:
        ConfigError: a connection or a driver is missing.
        DataError: the source is not there, or may not be read.
        Unavailable: its server does not answer, after a few tries.
    """
    if config.gives_rows and name == "source":
        return _rows(config, context)
    path = obtain(address, context, name)

    def table(how: IngestConfig, types: dict[str, str] | None) -> Table:
        return open_table(path, shown(address), how, types)

    return table


def _rows(config: IngestConfig, context: StepContext) -> Opener:
    increments = Increments(config, context) if config.sql and config.sql.watermark else None
    found = _incremental(config, context, increments) if increments else _whole(config, context)
    gathered, where = found.gathered, found.shown
    if not gathered.segments:
        raise DataError("there is no row", where=where, hint="look at the query; or let the run wait until there are")

    def table(how: IngestConfig, types: dict[str, str] | None) -> Table:
        rows = SegmentTable(gathered.segments, gathered.names, where, how, types, found.about)
        rows.attachments = found.attachments
        return rows

    return table


@dataclass
class _Found:
    """What was read of a source, how messages name it, what the manifest says of it, and files beside its rows."""

    gathered: Gathered
    shown: str
    about: dict[str, object]
    attachments: dict[str, bytes] = field(default_factory=dict)


def _whole(config: IngestConfig, context: StepContext) -> _Found:
    source = retried(lambda: _source(config, context), context)
    try:
        gathered = gather(source, config, context)
        return _Found(gathered, source.shown, source.describe(), source.attachments())
    finally:
        source.close()


def _incremental(config: IngestConfig, context: StepContext, increments: Increments) -> _Found:
    """Read what is new, add it to what earlier runs read, and return all."""
    from edgewright.steps.row_source_sql import SqlSource

    before = increments.highest
    source = SqlSource(config, context, after=before)
    try:
        new = gather(source, config, context)
        if new.segments and not increments.add(new, source.highest):
            context.note("another run read the same rows meanwhile; its rows are taken")
    finally:
        source.close()
    rows = sum(segment.rows for segment in new.segments)
    context.note("%s new rows above %s = %s", f"{rows:,}", config.sql and config.sql.watermark, before)
    mark = {"column": config.sql and config.sql.watermark, "value": str(increments.highest)}
    return _Found(increments.rows(), source.shown, {"watermark": mark, "increments": increments.count})


def _source(config: IngestConfig, context: StepContext) -> RowSource:
    """Return the source of an address; a kind's libraries are imported only for it."""
    kind = config.kind
    if kind == "sql":
        from edgewright.steps.row_source_sql import SqlSource

        return SqlSource(config, context)
    if kind == "cassandra":
        from edgewright.steps.row_source_cassandra import CassandraSource

        return CassandraSource(config)
    if kind == "images":
        from edgewright.steps.row_source_images import ImageSource

        return ImageSource(config, context)
    from edgewright.steps.row_source_http import HttpSource

    return HttpSource(config, context)
