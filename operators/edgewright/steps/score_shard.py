"""One shard: read, asked about, written. Nothing of it can be seen before all of it is there.

The part and the file of rejected rows appear under their names in one step each, the marker last. Whoever finds the
marker skips the shard; without one the shard is scored again and gives the same bytes, so it does not matter how often,
or by how many at once, it was tried.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from edgewright.artifacts.digest import sha256_file
from edgewright.steps.addresses import shown
from edgewright.steps.models import load_model
from edgewright.steps.score_model import Engine, Scorer
from edgewright.steps.score_places import Place
from edgewright.steps.score_plan import FilePlan
from edgewright.steps.score_read import blocks
from edgewright.steps.score_rows import Block, Wanted, unusable

if TYPE_CHECKING:
    from edgewright.steps.score_sinks import Sink, Target

_ASIDES_IN_MEMORY = 8 << 20
#: What a shard of a table counts for: nobody knows how large it is.
TABLE_SHARD = 1 << 20
#: Told while a shard is under way: rows and bytes since the last time.
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """Everything that a process needs in order to score shards.

    Attributes:
        plans: The files.
        out: Folder of the results of this model with these options.
        model: Name of the model in the output.
        folder: The model's folder on this machine.
        engine: How it is asked.
        output: ``parquet``, ``csv`` or ``jsonl``.
        probabilities: Whether each class has a column.
        scratch: Folder for temporary files.
        into: A table that predictions go into, instead of files.
    """

    plans: tuple[FilePlan, ...]
    out: Place
    model: str
    folder: Path
    engine: Engine
    output: str
    probabilities: bool
    scratch: Path
    into: Target | None = None

    def scorer(self) -> Scorer:
        """Load the model."""
        return Scorer(load_model(self.folder), self.engine.batch)

    @property
    def predictions(self) -> str:
        """Where predictions are, for people."""
        if self.into is None:
            return shown(self.out.address)
        return f"{shown(self.into.address)}{f'#{self.into.table}' if self.into.table else ''}"

    def marker(self, plan: FilePlan, cut: int) -> Place:
        """Return where a finished shard is noted."""
        return self.out.child(f"{plan.folder}/_done/{cut:05d}.json")

    def part(self, plan: FilePlan, cut: int) -> Place:
        """Return where a shard's predictions are."""
        return self.out.child(f"{plan.folder}/part-{cut:05d}.{self.output}")

    def rejected(self, plan: FilePlan, cut: int) -> Place:
        """Return where a shard's rows are that could not be scored."""
        return self.out.child(f"{plan.folder}/_rejected/{cut:05d}.jsonl")

    def done(self, plan: FilePlan, cut: int) -> dict[str, Any] | None:
        """Return a finished shard's marker, if its part is there in full; else ``None``."""
        found = self.marker(plan, cut).read_json()
        if not isinstance(found, dict):
            return None
        if self.into is None and self.part(plan, cut).size() != found.get("bytes"):
            return None
        return found


def score_shard(job: Job, scorer: Scorer, plan: FilePlan, cut: int, tell: Tell) -> dict[str, Any]:
    """Score one shard and return its marker."""
    started = time.process_time()
    with tempfile.SpooledTemporaryFile(_ASIDES_IN_MEMORY, dir=str(job.scratch)) as asides:
        if job.into is not None:
            from edgewright.steps.score_sinks import opened

            rows, rejected = _write_part(job, scorer, plan, cut, opened(job.into), asides, tell)
            digest, size = "", 0
        else:
            with job.part(plan, cut).filling(job.scratch) as path:
                with _Writer(path, job.output) as writer:
                    rows, rejected = _write_part(job, scorer, plan, cut, writer, asides, tell)
                digest, size = sha256_file(path), path.stat().st_size
        if rejected:
            asides.seek(0)
            with job.rejected(plan, cut).filling(job.scratch) as path, path.open("wb") as file:
                shutil.copyfileobj(asides, file)
    marker = {
        "version": 1, "rows": rows, "rejected": rejected, "bytes": size, "sha256": digest,
        "first_row": plan.cuts[cut].first_row, "cpu_seconds": round(time.process_time() - started, 3),
    }  # fmt: skip
    job.marker(plan, cut).write_json(marker)
    return marker


def _write_part(
    job: Job, scorer: Scorer, plan: FilePlan, cut: int, writer: _Writer | Sink, asides: IO[bytes], tell: Tell
) -> tuple[int, int]:
    """Write predictions to one place and rejected rows to another; return how many of each there are."""
    span, rows, rejected, written = plan.cuts[cut], 0, 0, False
    wanted = Wanted(scorer.document.features, plan.keep, scorer.number)
    for block in blocks(plan.reading, span.start, span.stop, span.first_row, wanted):
        if plan.key:
            from edgewright.steps.score_tables import without_key

            block = block.without(without_key(block, plan.key))
        scored, scores = ask(scorer, block)
        writer.write(_table(job, plan, scored, scores, scorer))
        written = True
        for bad in scored.bad:
            line = json.dumps(bad.document(plan.name), ensure_ascii=False) + "\n"
            asides.write(line.encode("utf-8", errors="replace"))
        rows, rejected = rows + len(scored.rows), rejected + len(scored.bad)
        tell(len(scored.rows) + len(scored.bad), block.size)
    if not written:
        writer.write(empty_output(job, plan, scorer))
    if plan.reading.table is not None:
        tell(0, TABLE_SHARD)
    return rows, rejected


def empty_output(job: Job, plan: FilePlan, scorer: Scorer) -> pa.Table:
    """Return what is written of no rows: the columns and their types."""
    empty = _empty(Wanted(scorer.document.features, plan.keep, scorer.number))
    return _table(job, plan, empty, scorer.scores(empty.table), scorer)


def ask(scorer: Scorer, block: Block) -> tuple[Block, np.ndarray[Any, Any]]:
    """Return the rows that could be scored, and their scores; the others are in ``bad``, in order of the file."""
    block = block.without(unusable(block, scorer.document.features))
    scores = scorer.scores(block.table)
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1)).tolist()
    if broken:
        good = np.ones(len(scores), dtype=bool)
        good[broken] = False
        block = block.without({place: ["the model's answer is not a number"] for place in broken})
        scores = scores[good]
    block.bad.sort(key=lambda bad: bad.row)
    return block, scores


def _empty(wanted: Wanted) -> Block:
    types = wanted.types
    table = pa.table({name: pa.array([], types[name]) for name in wanted.names})
    return Block(table, np.array([], dtype=np.int64))


# -- the output ------------------------------------------------------------------------------------------------------


def _table(job: Job, plan: FilePlan, block: Block, scores: np.ndarray[Any, Any], scorer: Scorer) -> pa.Table:
    count = len(block.rows)
    columns: dict[str, Any] = {}
    if plan.reading.table is None and not (plan.key and job.into):
        columns = {"file": _constant(plan.name, count), "row": pa.array(block.rows)}
    columns |= {name: block.table.column(name) for name in plan.keep}
    columns |= answers(scores, scorer.document.problem, scorer.document.classes, probabilities=job.probabilities)
    columns["model"] = _constant(job.model, count)
    return pa.table(columns)


def _constant(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), pa.array([text]))


def answers(
    scores: np.ndarray[Any, Any], problem: str, classes: Sequence[Any], *, probabilities: bool
) -> dict[str, Any]:
    """Return the columns ``prediction`` and ``probability_<class>`` for scores ``[rows, classes]`` or ``[rows, 1]``."""
    if problem == "regression":
        return {"prediction": pa.array(scores[:, 0])}
    best = pa.array(scores.argmax(axis=1).astype(np.int32))
    found: dict[str, Any] = {"prediction": pa.array(list(classes)).take(best)}
    if probabilities:
        for place, name in enumerate(classes):
            found[f"probability_{name}"] = pa.array(scores[:, place].astype(np.float32))
    return found


class _Writer:
    """Writes tables of one schema into a file of one of the formats."""

    def __init__(self, path: Path, output: str) -> None:
        self.path = path
        self.output = output
        self._target: Any = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if self._target is not None:
            self._target.close()

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        if self._target is None:
            self._target = self._open(table.schema)
        if self.output == "parquet":
            self._target.write_table(table)
        elif self.output == "csv":
            self._target.write_table(_decoded(table))
        else:
            import msgspec

            encoder = msgspec.json.Encoder()
            self._target.write(b"".join(encoder.encode(row) + b"\n" for row in table.to_pylist()))

    def _open(self, schema: pa.Schema) -> Any:
        if self.output == "parquet":
            constant = [field.name for field in schema if pa.types.is_dictionary(field.type)]
            repeated = [*constant, "prediction"] if schema.field("prediction").type != pa.float64() else constant
            counted = [name for name in ("row",) if name in schema.names]
            return pq.ParquetWriter(self.path, schema, use_dictionary=repeated, write_statistics=counted or False)
        if self.output == "csv":
            plain = [field.with_type(_plain_type(field.type)) for field in schema]
            return pacsv.CSVWriter(self.path, pa.schema(plain))
        return self.path.open("wb")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _decoded(table: pa.Table) -> pa.Table:
    fields = [field.with_type(_plain_type(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


__all__ = ["Job", "answers", "ask", "score_shard"]
