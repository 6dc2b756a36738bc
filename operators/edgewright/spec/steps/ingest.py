"""``ingest``: bring data from where they are into a versioned dataset with parts."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from edgewright.artifacts.refs import ArtifactRef
from edgewright.spec.steps.base import Accepts, Fraction, Start, StepConfig
from edgewright.spec.steps.retention import RetentionField
from edgewright.spec.steps.row_sources import (
    SQL_SCHEMES,
    CassandraRows,
    HttpRows,
    ImageRows,
    SqlRows,
    is_sql,
    scheme_of,
)

_WITH_PASSWORD = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*:[^/?#@]*@")


def _without_password(address: str) -> str:
    """Refuse an address that holds a password: a pipeline's text stands in Airflow, in the store and in git."""
    if _WITH_PASSWORD.match(address):
        raise ValueError("an address must not hold a password; give credentials by the environment")
    return address


#: What the address of a topic begins with.
KAFKA = "kafka://"
_TOPIC = re.compile(r"kafka://[A-Za-z0-9._-]{1,249}")
_PULL_ONLY = ("max_messages", "start")
_FILE_ONLY = ("format", "compression", "missing", "delimiter", "encoding", "max_bad_rows")


Source = Annotated[
    str,
    AfterValidator(_without_password),
    Field(
        min_length=1,
        description="A path relative to the pipeline's folder, file://, http(s)://, s3:// or another fsspec address; "
        "kafka://TOPIC with since_last_run: true; "
        "or a database: cassandra://HOST/KEYSPACE.TABLE, postgresql://HOST/DATABASE and others of SQLAlchemy's.",
        examples=["cleveland.csv", "s3://raw/heart/2026.parquet", "postgresql://db.example:5432/vitals"],
    ),
]
#: A source, or what a ``wait`` task took.
SourceOrBatch = Annotated[
    Annotated[Source, Tag("text")] | Annotated[ArtifactRef, Accepts(("batch",), text=True), Tag("batch")],
    # so that a fault speaks of what was meant
    Discriminator(lambda value: "batch" if isinstance(value, (dict, ArtifactRef)) else "text"),
    Field(
        description="A path relative to the pipeline's folder, file://, http(s)://, s3:// or another fsspec address; a "
        "database; kafka://TOPIC with since_last_run: true; or {$x: task}: what a wait took."
    ),
]
ColumnType = Literal["integer", "number", "string", "boolean", "timestamp", "date"]


class Split(StepConfig):
    """How rows are divided between ``train`` and ``test``; equal rows always land in the same part."""

    test: Annotated[float, Field(gt=0, lt=1, description="Share of the rows that go to the part test.")] = 0.25
    seed: int = 0
    stratify: Annotated[bool, Field(description="Keep the share of each value of the label in both parts.")] = False


class Minimum(StepConfig):
    """Fewer rows than this skip the run, with the reason."""

    rows: Annotated[int, Field(ge=0)] = 0
    per_class: Annotated[int, Field(ge=0)] = 0


#: What free text can be masked for, by name.
MASKS = {
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "phone": r"(?<![\w.])\+?\d[\d ()/-]{6,}\d(?![\w.])",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    "number": r"\d{4,}",
}


class Mask(StepConfig):
    """Hides parts of a free text behind ``***``."""

    mask: Annotated[
        list[str],
        Field(min_length=1, description=f"Names ({', '.join(MASKS)}) or regular expressions of your own."),
    ]

    @model_validator(mode="after")
    def _patterns(self) -> Mask:
        for entry in self.mask:
            try:
                re.compile(MASKS.get(entry, entry))
            except re.error as error:
                raise ValueError(
                    f"{entry!r} is neither one of {', '.join(MASKS)} nor a regular expression: {error}"
                ) from None
        return self


Treatment = Annotated[
    Annotated[Literal["token", "drop"], Tag("word")] | Annotated[Mask, Tag("mask")],
    # so that a fault speaks of what was meant
    Discriminator(lambda value: "mask" if isinstance(value, (dict, Mask)) else "word"),
]


class IngestConfig(StepConfig):
    """Reads tabular data as a stream and writes them as Parquet with a manifest."""

    ASIDE: ClassVar[frozenset[str]] = frozenset({"retention"})

    source: SourceOrBatch
    sql: Annotated[
        SqlRows | None, Field(description="Of a database: which rows. Passwords come from a connection.")
    ] = None
    cassandra: Annotated[CassandraRows | None, Field(description="Of a table of Cassandra: how it is read.")] = None
    http: Annotated[
        HttpRows | None, Field(description="Of a web service that answers in JSON: where its rows and pages are.")
    ] = None
    images: Annotated[
        ImageRows | None, Field(description="Of a folder of images: how they become rows, and where their labels are.")
    ] = None
    format: Literal["auto", "csv", "parquet", "jsonl"] = "auto"
    compression: Literal["auto", "none", "gzip"] = "auto"
    label: Annotated[str | None, Field(description="Column that is to be predicted.")] = None
    columns: Annotated[list[str] | None, Field(description="Columns to keep, in this order. Default: all.")] = None
    types: Annotated[
        dict[str, ColumnType], Field(description="Types of columns where inference would guess wrong.")
    ] = {}
    missing: Annotated[list[str], Field(description="Texts in a CSV that mean a missing value.")] = [
        "",
        "NA",
        "NaN",
        "null",
    ]
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: str = "utf-8"
    split: Split | None = None
    on_event: Annotated[
        Literal["ignore", "replace", "append"],
        Field(
            description="What a batch of events does to the source: nothing, stands alone, or is added to it with all "
            "batches of earlier runs that ended well."
        ),
    ] = "ignore"
    since_last_run: Annotated[
        bool,
        Field(
            description="Of kafka://TOPIC: take the messages that came since the last run that ended well. One that "
            "fails leaves them to the next."
        ),
    ] = False
    max_messages: Annotated[int, Field(ge=1, description="Messages that a run takes at most.")] = 100_000
    start: Annotated[
        Start, Field(description="Of kafka://TOPIC: where the first run begins: earliest, latest, or a date.")
    ] = "earliest"
    holdout: Annotated[Source | None, Field(description="Second source whose rows become the part holdout.")] = None
    minimum: Minimum = Minimum()
    max_bad_rows: Annotated[
        Fraction, Field(description="Share of unreadable rows that is still let through (they are counted).")
    ] = 0.0
    personal: Annotated[
        dict[str, Treatment],
        Field(
            description="Columns that identify people: token (a keyed hash), drop, or {mask: [email, phone]} for free "
            "text. Nothing of them is stored or logged as it came.",
            examples=[{"patient_id": "token", "remarks": {"mask": ["email"]}}],
        ),
    ] = {}
    retention: RetentionField = None
    connection: Annotated[
        str | None, Field(description="Airflow connection of the source. Of kafka://TOPIC: kafka_default.")
    ] = None

    @model_validator(mode="after")
    def _fits_together(self) -> IngestConfig:
        if self.split and self.split.stratify and not self.label:
            raise ValueError("split.stratify needs a label")
        addresses = [address for address in (self.address, self.holdout) if address]
        from_events = self.on_event != "ignore" or self.waited is not None
        takes_one = from_events or self.gives_rows or any(address.startswith(("s3://", KAFKA)) for address in addresses)
        if self.connection and not takes_one:
            raise ValueError("connection is for s3:// sources, databases, topics and http:")
        self._check_rows()
        self._check_kafka()
        self._check_waited()
        self._check_retention()
        if self.columns is not None:
            if not self.columns or len(set(self.columns)) < len(self.columns):
                raise ValueError("columns must name at least one column, and each only once")
            if self.label and self.label not in self.columns:
                raise ValueError(f"columns must contain the label {self.label}")
        if self.label in self.personal:
            raise ValueError(f"the label {self.label} cannot be personal: a model would give it away")
        typed = sorted(set(self.types) & set(self.personal))
        if typed:
            raise ValueError(f"types: {', '.join(typed)} is personal, and so is text")
        return self

    @property
    def kind(self) -> Literal["file", "sql", "cassandra", "http", "images"]:
        """What the source is."""
        if is_sql(self.address):
            return "sql"
        if scheme_of(self.address) == "cassandra":
            return "cassandra"
        if self.images is not None:
            return "images"
        return "http" if self.http is not None else "file"

    @property
    def gives_rows(self) -> bool:
        """Whether the source gives rows, not a file."""
        return self.kind != "file"

    def _check_rows(self) -> None:
        """Refuse keys that do not belong to the kind of the source."""
        belong = {
            "sql": f"the address of a database ({', '.join(SQL_SCHEMES)})",
            "cassandra": "cassandra://HOST/KEYSPACE.TABLE", "http": "an address of http:// or https://",
            "images": "a folder of the pipeline's folder or of file://",
        }  # fmt: skip
        fits = {"sql": self.kind == "sql", "cassandra": self.kind == "cassandra",
                "http": scheme_of(self.address) in ("http", "https"),
                "images": scheme_of(self.address) in ("", "file")}  # fmt: skip
        for key, with_what in belong.items():
            if getattr(self, key) is not None and not fits[key]:
                raise ValueError(f"{key} goes with {with_what}, not with this source")
        if self.kind == "sql" and self.sql is None:
            raise ValueError("a database needs sql: {table: ...} or sql: {query: ...}")
        if self.images is not None and (self.images.labels == "none") != (self.label is None):
            raise ValueError("images with labels need label: the name of their column; labels: none needs none")
        if self.holdout and (is_sql(self.holdout) or scheme_of(self.holdout) == "cassandra"):
            raise ValueError("the holdout must be a file; split: divides the rows of a database")
        if self.gives_rows:
            of_files = {"format", "compression", "missing", "delimiter", "encoding", "max_bad_rows"}
            given = sorted(of_files & self.model_fields_set)
            if given and self.holdout is None and self.on_event == "ignore":
                raise ValueError(f"{', '.join(given)}: for files, and the source gives rows")

    def _check_retention(self) -> None:
        """Refuse to promise an end for rows that every later version has again."""
        if self.retention is None:
            return
        if self.on_event == "append":
            raise ValueError("retention cannot hold with on_event: append, which keeps every batch for later versions")
        if self.sql is not None and self.sql.watermark:
            raise ValueError("retention cannot hold with sql.watermark, which keeps every row for later versions")

    def _check_waited(self) -> None:
        """Refuse what does not go with a batch that a task has waited for."""
        if self.waited is None:
            return
        if self.on_event != "ignore":
            raise ValueError("on_event is for batches that start a run; here a task has waited for the batch")
        given = [name for name in ("sql", "cassandra", "http", "images") if getattr(self, name) is not None]
        if given:
            raise ValueError(f"{given[0]} is for addresses, and here a task has waited for the rows")

    def _check_kafka(self) -> None:
        """Refuse what does not go with messages that a run pulls, and pulling from what is no topic."""
        if (self.holdout or "").startswith(KAFKA):
            raise ValueError("holdout must stay the same from run to run; a topic does not")
        if not self.address.startswith(KAFKA):
            if self.since_last_run:
                raise ValueError("since_last_run is for kafka://TOPIC")
            given = [name for name in _PULL_ONLY if name in self.model_fields_set]
            if given:
                raise ValueError(f"{given[0]} is for kafka://TOPIC with since_last_run: true")
            return
        if not _TOPIC.fullmatch(self.address):
            raise ValueError(f"{self.address} is no topic: write kafka://TOPIC; connection: says where the brokers are")
        if not self.since_last_run:
            raise ValueError(
                "a topic has no end: say since_last_run: true (or let its messages start runs by triggers:)"
            )
        if self.on_event != "ignore":
            raise ValueError("on_event is for batches that start a run; since_last_run pulls messages by schedule")
        given = [name for name in _FILE_ONLY if name in self.model_fields_set]
        if given:
            raise ValueError(f"{given[0]} is for files; messages are JSON objects")

    @property
    def address(self) -> str:
        """The source's address; empty where the source is what a ``wait`` took."""
        return self.source if isinstance(self.source, str) else ""

    @property
    def waited(self) -> ArtifactRef | None:
        """The batch that is the source, where it is what a ``wait`` took."""
        return self.source if isinstance(self.source, ArtifactRef) else None
