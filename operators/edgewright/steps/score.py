"""``score``: ask a model about every row of files of any size.

Layout of the results, below ``to`` (or ``scores/<dag_id>/<task_id>`` of the store)::

    bracelet-3-<options>/                      one model version, one set of options
        _engine.json                           which engine, and what was measured
        patients-<version of the file>/        one version of one file
            part-00000.parquet ...             predictions, a part a shard
            _rejected/00000.jsonl              rows that could not be scored, with the reasons
            _done/00000.json                   marker of a finished shard
            _plan.json, _SUCCESS
    latest.json                                what the last complete job wrote, file by file

So a task that goes on after a crash skips what is done, a second run over the same files with the same model does
nothing, and files that were added or changed are scored alone.
"""

from __future__ import annotations

import datetime
import os
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from edgewright.artifacts import digest_json
from edgewright.artifacts.digest import sha256_file
from edgewright.errors import ConfigError, DataError, GateResult
from edgewright.spec.steps.score import ScoreConfig
from edgewright.steps import score_sinks, score_tables
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.models import load_model
from edgewright.steps.reports import Report, Table
from edgewright.steps.row_source_sql import database_url
from edgewright.steps.score_model import WORTH_MEASURING, Candidates, Engine, Scorer, candidates, choose
from edgewright.steps.score_places import Place, place_of
from edgewright.steps.score_plan import FilePlan, plan_file, plan_table_of, remember
from edgewright.steps.score_pool import Shard, score_all
from edgewright.steps.score_progress import Progress
from edgewright.steps.score_read import blocks
from edgewright.steps.score_rows import Wanted, unusable
from edgewright.steps.score_shard import TABLE_SHARD, Job, empty_output
from edgewright.steps.score_sinks import Target
from edgewright.steps.sources import obtain

#: The sample has at most so many rows, and a fiftieth of the job's: measuring must not cost what it saves.
_SAMPLE_ROWS, _SAMPLE_SHARE = 65_536, 50
_LISTED = 200


@dataclass(frozen=True)
class Outcome:
    """What the shards of all files came to.

    Attributes:
        complete: Whether every shard is done, those of other tasks too.
        markers: Markers by file, in the order of the cuts; only those that are there.
        skipped: Shards that were done before.
        seconds: How long this task scored.
        rows: Rows that this task read.
    """

    complete: bool
    markers: list[list[dict[str, Any] | None]]
    skipped: int
    seconds: float
    rows: int

    def total(self, key: str) -> int:
        """Return the sum over all markers."""
        return sum(marker[key] for file in self.markers for marker in file if marker)


def run(config: ScoreConfig, context: StepContext, progress: Progress | None = None) -> StepOutput:
    """Score files.

    Args:
        config: The step's.
        context: The step's.
        progress: Told how far it is. Default: writes to the task's log.

    Raises:
        DataError: files are not there, lack columns, or too many rows cannot be scored.
        NotFound: there is no such model.
    """
    found = candidates(config, context)
    if config.from_topic:
        from edgewright.steps.score_topic import run_topic

        return run_topic(config, context, found, progress or Progress(context))
    threads = config.processes or len(os.sched_getaffinity(0))
    progress = progress or Progress(context)
    try:
        job = _job(config, context, found, threads)
        _prepare(job)
        outcome = _score(job, config, threads, progress)
    finally:
        score_sinks.close_all()
        score_tables.close_all()
    return _output(job, config, context, outcome, digest=found.digest)


def _job(config: ScoreConfig, context: StepContext, found: Candidates, threads: int) -> Job:
    document = found.document()
    options = config.model_dump(
        mode="json",
        include={"output", "keep", "types", "probabilities", "missing", "delimiter", "encoding", "quotes",
                 "shard_mib", "format", "engine", "variant"},
    )  # fmt: skip
    if config.key:
        options["key"] = config.key
    if config.into_table:
        options |= config.model_dump(mode="json", include={"to", "into"})
    key = digest_json({"model": found.digest, "options": options, "version": 1})
    identity = context.request.identity
    own = f"{context.store.root}/scores/{quote(identity.dag_id)}/{quote(identity.task_id)}"
    files = config.to if config.to and not config.into_table else None
    root = Place((files or own).rstrip("/"), config.connection if files else None)
    if "://" not in root.address:
        raise DataError("not an address", where=f"to: {config.to}", hint="write file:///... or s3://...")
    out = root.child(f"{re.sub(r'[^A-Za-z0-9_.-]', '-', found.name)}-{key[:8]}")
    plans = _plans(config, context, document.feature_names, key, out, threads)
    engine = _engine(found, config, plans, out)
    context.note("engine %s, batches of %d rows: %s", engine.name, engine.batch, engine.note)
    folder = found.folders[engine.name]
    return Job(
        plans, out, found.name, folder, engine, config.output, config.probabilities, context.scratch,
        _into(config, context, plans[0]) if config.into_table else None,
    )  # fmt: skip


def _plans(
    config: ScoreConfig, context: StepContext, needed: list[str], key: str, out: Place, threads: int
) -> tuple[FilePlan, ...]:
    if config.from_table:
        return (plan_table_of(config, context, needed, key, out),)
    both = [name for name in config.key or () if name in needed]
    if both:
        raise DataError(f"{both[0]} is a feature of the model, which takes it as a number with 7 digits", where="key")
    if config.into_table:
        # what was put into a table may have been taken out since: only a run that goes on skips what is done
        identity = context.request.identity
        key = digest_json([key, identity.dag_id, identity.run_id, identity.task_id])
    places = [place for address in config.sources for place in _places(address, config, context)]
    if twice := {place.address for place in places if places.count(place) > 1}:
        raise DataError(f"a file is named twice: {', '.join(sorted(twice))}", where="source")
    return tuple(plan_file(place, config, needed, key, out, threads) for place in places)


def _into(config: ScoreConfig, context: StepContext, plan: FilePlan) -> Target:
    """Return the table that predictions go into."""
    assert config.to is not None
    address, update = config.to, False
    if config.into is not None:
        if address.startswith("sqlite"):
            address = database_url(address, None, context).render_as_string()
        same = config.sql is not None and config.sql.table == config.into.table and _same(config, context)
        update = config.into.mode == "update" or (config.into.mode == "auto" and same)
        if update and config.keep:
            raise ConfigError("rows that are there have their columns already", where="keep",
                              hint="leave keep: out, or say into: {mode: upsert}")  # fmt: skip
    partition, types = plan.sorts or (0, {})
    return Target(
        address, plan.key or ("file", "row"), config.to_connection, config.into.table if config.into else "", update,
        partition, tuple(types.items()),
    )  # fmt: skip


def _same(config: ScoreConfig, context: StepContext) -> bool:
    source = database_url(config.sources[0], config.connection, context)
    target = database_url(config.to or "", config.to_connection, context)
    return (source.host, source.port, source.database) == (target.host, target.port, target.database)


def _prepare(job: Job) -> None:
    """Make the table that predictions go into, or refuse one that does not fit, before anything is scored."""
    if job.into is not None:
        score_sinks.opened(job.into).prepare(empty_output(job, job.plans[0], job.scorer()).schema)


def _places(address: str, config: ScoreConfig, context: StepContext) -> list[Place]:
    if address.startswith(("http://", "https://")):
        # a server need not know ranges, nor give the same bytes twice: what came is named by its digest
        path = obtain(address, context, "source")
        target = path.with_name(f"{sha256_file(path)[:16]}-{path.name.removeprefix('source-')}")
        return [Place(f"file://{path.rename(target)}", base=target.parent)]
    folder = context.source_folder if context.request.source is not None else None
    return place_of(address, folder, config.connection).expand()


def _engine(found: Candidates, config: ScoreConfig, plans: tuple[FilePlan, ...], out: Place) -> Engine:
    """Return the engine that was written down, else measure and write it down."""
    place = out.child("_engine.json")
    known = place.read_json()
    if known is None or known.get("name") not in found.folders:
        samples = {name: _sample(found, name, plans) for name in found.folders}
        known = place.create_json(choose(found, samples).as_dict())
    return Engine(**known)


def _sample(found: Candidates, engine: str, plans: tuple[FilePlan, ...]) -> pa.Table:
    scorer = Scorer(load_model(found.folders[engine]), 1)
    tables: list[pa.Table] = []
    total = sum(cut.rows for plan in plans for cut in plan.cuts)
    limit = min(_SAMPLE_ROWS, max(WORTH_MEASURING, total // _SAMPLE_SHARE))
    for plan in plans:
        wanted = Wanted(scorer.document.features, {}, scorer.number)
        for cut in plan.cuts[:1]:
            for block in blocks(plan.reading, cut.start, cut.stop, cut.first_row, wanted):
                usable = block.without(unusable(block, scorer.document.features)).table
                tables.append(usable.slice(0, limit - sum(table.num_rows for table in tables)))
                if sum(table.num_rows for table in tables) >= limit:
                    return pa.concat_tables(tables)
    return pa.concat_tables(tables) if tables else pa.table({})


def _score(job: Job, config: ScoreConfig, processes: int, progress: Progress) -> Outcome:
    everything = [Shard(file, cut) for file, plan in enumerate(job.plans) for cut in range(len(plan.cuts))]
    own = config.slice
    mine = [shard for place, shard in enumerate(everything) if own is None or place % own.of == own.index]
    waiting = [shard for shard in mine if job.done(job.plans[shard.file], shard.cut) is None]
    started = time.monotonic()
    progress.begin(sum(_bytes(job.plans[shard.file], shard.cut) for shard in waiting), len(waiting), len(mine))
    if waiting:
        score_all(job, waiting, processes, progress)
    seconds = time.monotonic() - started
    progress.end()
    markers = [[job.done(plan, cut) for cut in range(len(plan.cuts))] for plan in job.plans]
    complete = all(marker is not None for file in markers for marker in file)
    return Outcome(complete, markers, len(mine) - len(waiting), seconds, progress.rows)


def _bytes(plan: FilePlan, cut: int) -> int:
    span = plan.cuts[cut]
    if plan.reading.table is not None:
        return TABLE_SHARD
    if plan.reading.packed:
        return 0
    if plan.reading.format != "parquet":
        return span.stop - span.start
    rows = sum(one.rows for one in plan.cuts)
    return plan.size * span.rows // max(1, rows)


# -- what is left ----------------------------------------------------------------------------------------------------


def _output(job: Job, config: ScoreConfig, context: StepContext, outcome: Outcome, *, digest: str) -> StepOutput:
    document = _manifest(job, outcome, digest)
    rows, rejected = outcome.total("rows"), outcome.total("rejected")
    share = rejected / max(1, rows + rejected)
    gate = GateResult("rejected", "<=", config.max_rejected, share, share <= config.max_rejected, f"{rejected:,} rows")
    if outcome.complete:
        for plan in job.plans:
            job.out.child(f"{plan.folder}/_SUCCESS").write(b"")
        if gate.passed:
            for plan in job.plans:
                remember(job.out, plan)
            latest = Place(job.out.address.rpartition("/")[0], job.out.connection)
            latest.child("latest.json").write_json(document)
    folder = context.folder("report")
    _report(document, gate, outcome, context).write(folder)
    meta = {"page": "report.html", "rows": rows, "rejected": rejected, "predictions": job.predictions}
    metrics = {
        "rows": float(rows), "rejected": float(rejected), "shards": float(sum(map(len, outcome.markers))),
        "shards_reused": float(outcome.skipped), "rows_per_second": outcome.rows / max(outcome.seconds, 1e-3),
        "cpu_seconds": float(sum(m["cpu_seconds"] for file in outcome.markers for m in file if m)),
    }  # fmt: skip
    tags = {"predictions": job.predictions, "model": job.model, "engine": job.engine.name}
    notes = [f"{rows:,} rows scored, {rejected:,} aside; predictions are in {job.predictions}"]
    if not outcome.complete:
        notes.append("other tasks of this job still have shards to score")
    ref = context.put(folder, "report", meta)
    return StepOutput({"report": ref}, metrics, tags, [gate], notes)


def _manifest(job: Job, outcome: Outcome, digest: str) -> dict[str, Any]:
    files = []
    for plan, markers in zip(job.plans, outcome.markers, strict=True):
        parts = [
            {"part": f"{plan.folder}/part-{cut:05d}.{job.output}" if job.into is None else cut,
             **{key: marker[key] for key in ("rows", "rejected", "bytes", "sha256")}}
            for cut, marker in enumerate(markers) if marker is not None
        ]  # fmt: skip
        files.append({"file": plan.name, "bytes": plan.size, "parts": parts})
    return {
        "version": 1, "model": job.model, "digest": digest, "folder": job.out.address.rpartition("/")[2],
        "predictions": job.predictions,
        "engine": job.engine.as_dict(), "output": job.output, "files": files,
        "rows": outcome.total("rows"), "rejected": outcome.total("rejected"), "complete": outcome.complete,
    }  # fmt: skip


def _report(document: dict[str, Any], gate: GateResult, outcome: Outcome, context: StepContext) -> Report:
    identity = context.request.identity
    report = Report(
        title=f"{identity.dag_id}: predictions",
        subtitle=f"{document['rows']:,} rows scored by {document['model']}, {document['rejected']:,} aside",
        gates=[gate],
        data=document,
    )
    rows = [
        (file["file"], file["bytes"], len(file["parts"]), sum(part["rows"] for part in file["parts"]),
         sum(part["rejected"] for part in file["parts"]))
        for file in document["files"][:_LISTED]
    ]  # fmt: skip
    more = f"and {len(document['files']) - _LISTED:,} more files" if len(document["files"]) > _LISTED else ""
    report.tables.append(Table("Files", ("file", "bytes", "parts", "rows", "aside"), rows, note=more))
    engine = document["engine"]
    measured = [(one["engine"], one["batch"], one["us_per_row"]) for one in engine["measured"]]
    note = f"{engine['name']} with batches of {engine['batch']:,}: {engine['note']}"
    report.tables.append(Table("Engine", ("engine", "batch", "CPU µs a row"), measured, note=note))
    report.facts = {
        "run": f"{identity.run_id}, task {identity.task_id}",
        "model": f"{document['model']}, digest {document['digest']}",
        "rate": f"{outcome.rows / max(outcome.seconds, 1e-3):,.0f} rows a second",
        "shards that were there before": outcome.skipped,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return report
