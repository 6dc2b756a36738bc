"""From addresses to shards: what is read, in which ranges, and under which names the results stand.

A file's plan is kept beside its results, so that a task which goes on after a crash need not look at the file again.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgewright.artifacts import digest_json
from edgewright.errors import ConfigError, DataError
from edgewright.steps.addresses import shown
from edgewright.steps.row_values import decode_value, encode_value
from edgewright.steps.score_places import Place
from edgewright.steps.score_read import Reading, unpacked
from edgewright.steps.score_scan import Cut, scan

if TYPE_CHECKING:
    from edgewright.spec.steps.score import ScoreConfig
    from edgewright.steps.context import StepContext

#: Bytes.
MIB = 1 << 20

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_LONGEST_HEADER = 4 << 20
_LOOK = 1000
#: Encodings in which a byte of ASCII is always that character, so that ranges of bytes can be cut at line ends.
_WIDE = ("utf-16", "utf-32", "utf-7")


@dataclass(frozen=True)
class FilePlan:
    """One file and its shards.

    Attributes:
        name: The file for people; stands in the output.
        folder: Name of the folder of its results; follows from its version, the model and the options.
        reading: How it is read.
        keep: Types of kept columns; ``None``: the file's own.
        cuts: Ranges of bytes, or of row groups.
        size: Its bytes; of a table 0.
        key: Columns that tell a row from all others; empty where file and number of the row do.
        sorts: See :class:`~edgewright.steps.score_tables.Planned`.
        since: Of a table with a watermark: name of the document that says up to where it is scored.
        mark: What that document says when this plan is done; ``None`` where no row is new.
    """

    name: str
    folder: str
    reading: Reading
    keep: dict[str, str | None]
    cuts: tuple[Cut, ...]
    size: int
    key: tuple[str, ...] = ()
    sorts: tuple[int, dict[str, str]] | None = None
    since: str = ""
    mark: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Return what is kept of it."""
        reading = {key: getattr(self.reading, key) for key in ("format", "columns", "quotes", "folded", "packed")}
        cuts = [[cut.start, cut.stop, cut.first_row, cut.rows] for cut in self.cuts]
        return {"version": 1, "file": self.name, "size": self.size, "reading": reading, "keep": self.keep, "cuts": cuts}


def plan_file(place: Place, config: ScoreConfig, needed: list[str], model: str, out: Place, threads: int) -> FilePlan:
    """Return a file's plan: the one that is kept, or a new one, which then is.

    Args:
        place: The file.
        config: The step's.
        needed: Columns of the model.
        model: What identifies model and options.
        out: Folder of all results.
        threads: How many ranges are looked at at once.

    Raises:
        DataError: the file is not there, or lacks columns, or cannot be cut.
    """
    identity = place.identity()
    name = place.name
    folder = f"{_plain_name(place)}-{digest_json({'file': identity, 'model': model})[:12]}"
    key = tuple(config.key or ())
    kept = out.child(f"{folder}/_plan.json")
    found = kept.read_json()
    if found is not None and found.get("version") == 1:
        return dataclasses.replace(_again(found, place, folder, config), key=key)
    form = _format(place, config)
    reading = Reading(
        place, name, form, packed=_is_packed(place) and form != "parquet", delimiter=_delimiter(place, config),
        encoding=_encoding(config), missing=tuple(config.missing),
    )  # fmt: skip
    make = {"csv": _plan_csv, "jsonl": _plan_jsonl, "parquet": _plan_parquet}[form]
    reading, keep, cuts = make(reading, config, needed, identity["size"], threads)
    plan = FilePlan(name, folder, reading, keep, tuple(cuts), identity["size"], key)
    kept.write_json(plan.document())
    return plan


def plan_table_of(config: ScoreConfig, context: StepContext, needed: list[str], model: str, out: Place) -> FilePlan:
    """Return a table's plan: the one that an earlier try of this run has made, or a new one.

    Raises:
        ConfigError: the table has no key.
        DataError: it is not there, or lacks columns.
    """
    from edgewright.steps.score_tables import TableRows, plan_table

    identity = context.request.identity
    asked = config.model_dump(mode="json", include={"source", "sql", "cassandra"})
    run = {"run": [identity.dag_id, identity.run_id, identity.task_id], "table": asked, "model": model}
    folder = f"table-{digest_json(run)[:12]}"
    kept = out.child(f"{folder}/_plan.json")
    found, since = kept.read_json(), _since(config, model)
    if found is None or found.get("version") != 1:
        before = out.child(since).read_json() if since else None
        made = plan_table(config, context, needed, decode_value(before["mark"]) if before else None)
        found = kept.create_json({
            "version": 1, "table": made.shown, "source": made.rows.source, "parts": made.rows.parts, "key": made.key,
            "keep": made.keep, "sorts": made.sorts, "after": before["mark"] if before else None,
            "mark": None if made.highest is None else encode_value(made.highest),
        })  # fmt: skip
    rows = TableRows(found["source"], tuple(found["parts"]))
    reading = Reading(out.child(folder), found["table"], "table", table=rows)
    cuts = tuple(Cut(number, number + 1, 1, 0) for number in range(len(rows.parts)))
    sorts = (found["sorts"][0], found["sorts"][1]) if found["sorts"] else None
    keep = {name: found["keep"][name] for name in dict.fromkeys([*found["key"], *config.keep])}
    if since:
        context.note(
            "%s above %s: %s", found["table"], _said(found.get("after")), _said(found.get("mark"), "no new row")
        )
    return FilePlan(
        found["table"], folder, reading, keep, cuts, 0, tuple(found["key"]), sorts, since, found.get("mark")
    )


def _since(config: ScoreConfig, model: str) -> str:
    """Return the name of the document that says up to where a table is scored by a model; empty without a watermark."""
    if config.sql is None or not config.sql.watermark:
        return ""
    which = config.sql.model_dump(mode="json", include={"query", "table", "watermark"})
    return f"_since-{digest_json([config.source, which, model])[:12]}.json"


def _said(mark: dict[str, Any] | None, otherwise: str = "the beginning") -> str:
    return otherwise if mark is None else str(decode_value(mark))


def remember(out: Place, plan: FilePlan) -> None:
    """Write down up to where a table is scored; a run that ends late takes nothing back."""
    if not plan.since or plan.mark is None:
        return
    place = out.child(plan.since)
    before = place.read_json()
    if before is None or decode_value(plan.mark) > decode_value(before["mark"]):
        place.write_json({"version": 1, "table": plan.name, "mark": plan.mark})


def _again(found: dict[str, Any], place: Place, folder: str, config: ScoreConfig) -> FilePlan:
    kept = {**found["reading"], "columns": tuple(found["reading"]["columns"])}
    reading = Reading(
        place, found["file"], delimiter=_delimiter(place, config), encoding=_encoding(config),
        missing=tuple(config.missing), **kept,
    )  # fmt: skip
    cuts = tuple(Cut(*cut) for cut in found["cuts"])
    return FilePlan(found["file"], folder, reading, found["keep"], cuts, found["size"])


def _plain_name(place: Place) -> str:
    stem = PurePosixPath(place.address).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:60] or "file"


def _format(place: Place, config: ScoreConfig) -> str:
    if config.format != "auto":
        return config.format
    name = place.address.lower().removesuffix(".gz")
    for suffix, found in _SUFFIXES.items():
        if name.endswith(suffix):
            return found
    raise DataError(
        "its name does not tell the format", where=shown(place.address), hint="say format: csv, parquet or jsonl"
    )


def _delimiter(place: Place, config: ScoreConfig) -> str:
    said = "delimiter" in config.model_fields_set
    return "\t" if not said and place.address.lower().removesuffix(".gz").endswith(".tsv") else config.delimiter


def _encoding(config: ScoreConfig) -> str:
    try:
        name = codecs.lookup(config.encoding).name
    except LookupError as error:
        raise ConfigError(f"no such encoding: {config.encoding}", where="encoding") from error
    if name.startswith(_WIDE):
        raise ConfigError(
            f"a file in {config.encoding} cannot be cut into shards",
            where="encoding",
            hint="make it UTF-8 before: iconv -f utf-16 -t utf-8, or ingest it",
        )
    return name.removesuffix("-sig")


def _is_packed(place: Place) -> bool:
    with place.open() as file:
        return file.read(2) == b"\x1f\x8b"


# -- CSV and JSON lines ----------------------------------------------------------------------------------------------

_Planned = tuple[Reading, dict[str, str | None], list[Cut]]


def _plan_csv(reading: Reading, config: ScoreConfig, needed: list[str], size: int, threads: int) -> _Planned:
    columns, start = _header(reading, config)
    _check_columns(list(columns), [*needed, *config.kept], reading.name)
    keep: dict[str, str | None] = {name: config.types.get(name, "string") for name in config.kept}
    if reading.packed:
        found = Reading(**{**vars(reading), "columns": columns, "quotes": config.quotes, "folded": config.quotes})
        return found, keep, [Cut(start, 0, 1, -1)]
    seen = scan(
        reading.place.open, start, size, max(1, round(config.shard_mib * MIB)), quotes=config.quotes,
        threads=threads, where=reading.name,
    )  # fmt: skip
    found = Reading(**{**vars(reading), "columns": columns, "quotes": seen.quotes, "folded": seen.folded})
    return found, keep, seen.cuts


def _header(reading: Reading, config: ScoreConfig) -> tuple[tuple[str, ...], int]:
    """Return the columns' names, and where the first record begins."""
    with unpacked(reading.place, reading.packed) as file:
        data = file.read(_LONGEST_HEADER)
    if not data.strip():
        raise DataError("the file is empty", where=reading.name)
    end, inside = 0, False
    while True:
        following = data.find(b"\n", end)
        if following < 0:
            end = len(data)
            break
        inside ^= config.quotes and data.count(b'"', end, following) % 2 == 1
        end = following + 1
        if not inside and data[:end].strip():
            break
    text = data[:end].removeprefix(codecs.BOM_UTF8).decode(reading.encoding, errors="replace")
    lines = csv.reader(
        io.StringIO(text),
        delimiter=reading.delimiter,
        quoting=csv.QUOTE_MINIMAL if config.quotes else csv.QUOTE_NONE,
    )
    rows = [row for row in lines if row]
    return tuple(rows[0]), end


def _plan_jsonl(reading: Reading, config: ScoreConfig, needed: list[str], size: int, threads: int) -> _Planned:
    keep = _json_kinds(reading, config, needed)
    if reading.packed:
        return reading, keep, [Cut(0, 0, 1, -1)]
    seen = scan(
        reading.place.open, 0, size, max(1, round(config.shard_mib * MIB)), quotes=False, threads=threads,
        where=reading.name,
    )  # fmt: skip
    return reading, keep, seen.cuts


def _json_kinds(reading: Reading, config: ScoreConfig, needed: list[str]) -> dict[str, str | None]:
    """Return the types of kept columns as the first lines show them; refuse columns that none of them has."""
    kinds: dict[str, set[str]] = {}
    with unpacked(reading.place, reading.packed) as raw:
        file = io.BufferedReader(raw, 1 << 20)  # type: ignore[type-var]
        for _, line in zip(range(_LOOK), file, strict=False):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            for name, value in row.items() if isinstance(row, dict) else ():
                kinds.setdefault(name, set()).add(type(value).__name__)
    if not kinds:
        raise DataError("no line of the file's beginning is a JSON object", where=reading.name)
    _check_columns(list(kinds), [*needed, *config.kept], reading.name)
    return {name: config.types.get(name) or _json_kind(kinds[name] - {"NoneType"}) for name in config.kept}


def _json_kind(found: set[str]) -> str:
    if found and found <= {"int", "float"}:
        return "integer" if found == {"int"} else "number"
    return "boolean" if found == {"bool"} else "string"


def _check_columns(columns: list[str], needed: list[str], where: str) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"columns occur twice: {', '.join(twice)}", where=where, hint="rename them")
    absent = [name for name in dict.fromkeys(needed) if name not in columns]
    if absent:
        raise DataError(
            f"there is no column {', '.join(absent)}, which is needed", where=where,
            hint=f"columns are: {', '.join(columns)[:400]}",
        )  # fmt: skip


# -- Parquet ---------------------------------------------------------------------------------------------------------


def _plan_parquet(reading: Reading, config: ScoreConfig, needed: list[str], size: int, threads: int) -> _Planned:
    try:
        with reading.place.open() as raw, pq.ParquetFile(raw) as file:
            _check_columns(file.schema_arrow.names, [*needed, *config.kept], reading.name)
            sizes = [
                (file.metadata.row_group(group).num_rows, file.metadata.row_group(group).total_byte_size)
                for group in range(file.metadata.num_row_groups)
            ]
    except pa.ArrowException as error:
        raise DataError(f"cannot be read as parquet: {error}", where=reading.name) from error
    return reading, dict.fromkeys(config.kept), _joined(sizes, config.shard_mib * MIB)


def _joined(sizes: list[tuple[int, int]], limit: float) -> list[Cut]:
    """Return ranges of row groups with at least so many bytes each."""
    cuts: list[Cut] = []
    start, row, rows, held = 0, 1, 0, 0
    for group, (count, size) in enumerate(sizes):
        rows, held = rows + count, held + size
        if held >= limit or group == len(sizes) - 1:
            cuts.append(Cut(start, group + 1, row, rows))
            start, row, rows, held = group + 1, row + rows, 0, 0
    return cuts
