"""``score``: ask a model about every row of files of any size, shard by shard."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from edgewright.spec.steps.base import Fraction, Model, Start, StepConfig
from edgewright.spec.steps.ingest import ColumnType, Source, _without_password
from edgewright.spec.steps.row_sources import CassandraRows, SqlRows, is_sql, scheme_of

#: Columns that every output has; probabilities come after them.
OWN_COLUMNS = ("file", "row", "prediction", "model")
KAFKA = "kafka://"
_TOPIC = re.compile(r"kafka://[A-Za-z0-9._-]{1,249}")
_NOT_OF_TOPICS = {
    "sql", "cassandra", "key", "into", "to_connection", "format", "output", "types", "missing", "delimiter", "encoding",
    "quotes", "shard_mib", "processes", "slice",
}  # fmt: skip
#: How a version is named: ``NAME``, ``NAME@ALIAS`` or ``NAME/VERSION``.
REGISTERED = r"^[^/@\s]+([/@][^/@\s]+)?$"


class Slice(StepConfig):
    """Which share of the shards this task takes, where a pipeline maps over several tasks."""

    index: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _inside(self) -> Slice:
        if self.index >= self.of:
            raise ValueError(f"index counts from 0, so with of: {self.of} it is at most {self.of - 1}")
        return self


class Into(StepConfig):
    """The table of an SQL database that predictions go into."""

    table: Annotated[
        str, Field(min_length=1, description="The table, with its schema where it needs one; made where it lacks.")
    ]
    mode: Annotated[
        Literal["auto", "upsert", "update"],
        Field(
            description="upsert: rows are put in, or replaced, by their key; update: rows that are there get the "
            "predictions. auto: update where it is the table that is read, else upsert."
        ),
    ] = "auto"


def is_table(address: str) -> bool:
    """Whether an address is that of a table: in an SQL database, or of Cassandra."""
    return is_sql(address) or scheme_of(address) == "cassandra"


class ScoreConfig(StepConfig):
    """Scores files or tables as they are: sharded, resumable, in constant memory; bad rows go aside."""

    ONE_OF = ("model", "registered")

    model: Model | None = None
    registered: Annotated[
        str | None,
        Field(
            pattern=REGISTERED,
            description="A registered model: NAME (its champion), NAME@ALIAS or NAME/VERSION.",
            examples=["bracelet@champion"],
        ),
    ] = None
    variant: Annotated[
        str | None, Field(description="Variant of a registered model. Default: onnx, else the one that is served.")
    ] = None
    source: Annotated[
        Source | Annotated[list[Source], Field(min_length=1)],
        Field(
            description="Files: relative paths, file://, s3:// or another fsspec address; * stands for any name. Or "
            "one table: cassandra://HOST/KEYSPACE.TABLE, postgresql://HOST/DATABASE and others of SQLAlchemy's. Or "
            "one topic: kafka://TOPIC."
        ),
    ]
    sql: Annotated[SqlRows | None, Field(description="Of a database: which rows. split_by cuts them into shards.")] = (
        None
    )
    cassandra: Annotated[CassandraRows | None, Field(description="Of a table of Cassandra: how it is read.")] = None
    key: Annotated[
        list[str] | None,
        Field(min_length=1, description="Columns that tell a row from all others. Default: a table's primary key."),
    ] = None
    to: Annotated[
        Annotated[str, AfterValidator(_without_password), Field(min_length=1)] | None,
        Field(
            description="Folder for predictions: file://, s3://. Default: scores/DAG/TASK in the store. Or a table, "
            "with into: for one of an SQL database. Of a topic: kafka://TOPIC."
        ),
    ] = None
    into: Annotated[Into | None, Field(description="Of an SQL database: the table that predictions go into.")] = None
    to_connection: Annotated[str | None, Field(description="Airflow connection of the table in to:.")] = None
    start: Annotated[
        Start, Field(description="Of kafka://TOPIC: where the first run begins: earliest, latest, or a date.")
    ] = "earliest"
    dead_letters: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] | None,
        Field(description="Of kafka://TOPIC: topic for messages that cannot be scored. Default: TO.rejected."),
    ] = None
    format: Literal["auto", "csv", "parquet", "jsonl"] = "auto"
    output: Literal["parquet", "csv", "jsonl"] = "parquet"
    keep: Annotated[list[str], Field(description="Columns of the input that stand beside the predictions.")] = []
    types: Annotated[dict[str, ColumnType], Field(description="Types of kept columns of a CSV. Default: string.")] = {}
    probabilities: Annotated[bool, Field(description="One column a class, with its probability.")] = True
    missing: Annotated[list[str], Field(description="Texts in a CSV that mean a missing value.")] = [
        "",
        "NA",
        "NaN",
        "null",
    ]
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: str = "utf-8"
    quotes: Annotated[bool, Field(description="Whether a CSV's values may stand in double quotes.")] = True
    max_rejected: Annotated[Fraction, Field(description="Share of rows that may go aside before the task fails.")] = (
        0.01
    )
    shard_mib: Annotated[float, Field(gt=0, le=4096, description="MiB of input in a shard.")] = 64
    processes: Annotated[int | None, Field(ge=1, description="Default: one a core.")] = None
    engine: Annotated[
        Literal["auto", "onnx", "native"],
        Field(description="auto: what is faster on a sample of the rows; it is recorded."),
    ] = "auto"
    allow_pickle: Annotated[
        bool, Field(description="Let engine: native load the pickled variant of a registered model.")
    ] = False
    slice: Slice | None = None
    connection: Annotated[str | None, Field(description="Airflow connection with the credentials of s3://.")] = None

    @model_validator(mode="after")
    def _fits_together(self) -> ScoreConfig:
        if (self.model is None) == (self.registered is None):
            raise ValueError("give either model: or registered:, exactly one of them")
        self._check_tables()
        self._check_topics()
        own = [
            name for name in (*self.keep, *(self.key or ())) if name in OWN_COLUMNS or name.startswith("probability_")
        ]
        if own:
            raise ValueError(f"{', '.join(own)} are names of columns that score itself writes")
        if len(set(self.keep)) < len(self.keep):
            raise ValueError("keep must name each column only once")
        if unkept := sorted(set(self.types) - {*self.keep, *(self.key or ())}):
            raise ValueError(f"types: is for kept columns, and {', '.join(unkept)} is not in keep:")
        if self.model is not None and (self.variant or self.allow_pickle):
            raise ValueError("variant and allow_pickle are for registered:")
        return self

    def _check_tables(self) -> None:
        tables = [address for address in self.sources if is_table(address)]
        if tables and len(self.sources) > 1:
            raise ValueError("a table is scored by itself: one source")
        for name, fits in (("sql", any(map(is_sql, tables))), ("cassandra", any(not is_sql(one) for one in tables))):
            if getattr(self, name) is not None and not fits:
                raise ValueError(f"{name} goes with a source of that kind, not with this one")
        if tables and is_sql(tables[0]) and self.sql is None:
            raise ValueError("a database needs sql: {table: ...} or sql: {query: ...}")
        of_files = {"format", "missing", "delimiter", "encoding", "quotes", "shard_mib"} & self.model_fields_set
        if tables and of_files:
            raise ValueError(f"{', '.join(sorted(of_files))}: for files, and the source is a table")
        self._check_target()

    def _check_topics(self) -> None:
        target = self.to or ""
        if not any(address.startswith(KAFKA) for address in (*self.sources, target)):
            given = sorted({"start", "dead_letters"} & self.model_fields_set)
            if given:
                raise ValueError(f"{given[0]} is for kafka://TOPIC")
            return
        if len(self.sources) > 1 or not self.from_topic or not target.startswith(KAFKA):
            raise ValueError("a topic is scored into a topic: source: kafka://TOPIC and to: kafka://OTHER")
        for name, address in (("source", self.sources[0]), ("to", target)):
            if not _TOPIC.fullmatch(address):
                raise ValueError(f"{name}: {address} is no topic: write kafka://TOPIC; connection: says where the "
                                 "brokers are")  # fmt: skip
        if target == self.sources[0]:
            raise ValueError("a topic cannot be scored into itself")
        given = sorted(_NOT_OF_TOPICS & self.model_fields_set)
        if given:
            raise ValueError(f"{', '.join(given)}: for files and tables, and the source is a topic")

    def _check_target(self) -> None:
        target = self.to or ""
        if is_sql(target) and self.into is None:
            raise ValueError("to: names a database, and needs into: {table: ...}")
        if self.into is not None and not is_sql(target):
            raise ValueError("into goes with to: DATABASE, as postgresql://HOST/DATABASE")
        if is_table(target) and "output" in self.model_fields_set:
            raise ValueError("output is for files, and to: names a table")
        if self.to_connection and not is_table(target):
            raise ValueError("to_connection is for a table in to:")
        if self.key and len(set(self.key)) < len(self.key):
            raise ValueError("key must name each column only once")

    @property
    def from_table(self) -> bool:
        """Whether a table is scored."""
        return is_table(self.sources[0])

    @property
    def from_topic(self) -> bool:
        """Whether a topic of Kafka is scored."""
        return self.sources[0].startswith(KAFKA)

    @property
    def into_table(self) -> bool:
        """Whether predictions go into a table."""
        return is_table(self.to or "")

    @property
    def kept(self) -> list[str]:
        """Columns of the input that stand in the output, those of the key first."""
        return list(dict.fromkeys([*(self.key or ()), *self.keep]))

    @property
    def sources(self) -> list[str]:
        """The addresses, always as a list."""
        return [self.source] if isinstance(self.source, str) else list(self.source)
