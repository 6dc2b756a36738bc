"""How ``ingest`` reads rows that do not stand in a file: the keys beside ``source`` that belong to one kind of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgewright.spec.steps.base import StepConfig

#: Schemes of databases that SQLAlchemy knows; a driver may follow, as in ``mysql+pymysql``.
SQL_SCHEMES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "sqlite", "snowflake", "redshift")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)(?:\+[A-Za-z0-9_-]+)?://")


def scheme_of(address: str) -> str:
    """Return the scheme of an address without its driver; empty for a path."""
    found = _SCHEME.match(address)
    return found[1].lower() if found else ""


def is_sql(address: str) -> bool:
    """Whether an address is that of an SQL database."""
    return scheme_of(address) in SQL_SCHEMES


class SqlRows(StepConfig):
    """Which rows of an SQL database are read, and how."""

    query: Annotated[str | None, Field(min_length=1, description="A SELECT; it is sent as it stands.")] = None
    table: Annotated[
        str | None,
        Field(
            min_length=1, description="A table or view, with its schema where it needs one.", examples=["vitals.day"]
        ),
    ] = None
    watermark: Annotated[
        str | None,
        Field(
            min_length=1,
            description="A column that only grows (a number, a time): each run reads only rows above the last run's "
            "highest value. ingest adds them to the rows that it has, score scores them alone.",
        ),
    ] = None
    split_by: Annotated[
        str | None,
        Field(min_length=1, description="A column of numbers or times by whose ranges the rows are read in parts."),
    ] = None
    parts: Annotated[
        int, Field(ge=1, le=1000, description="Parts by split_by; a retry reads only those that lack.")
    ] = 8
    parallel: Annotated[int, Field(ge=1, le=32, description="Parts that are read at the same time.")] = 4
    fetch: Annotated[int, Field(ge=100, le=1_000_000, description="Rows that are in memory at a time.")] = 10_000

    @model_validator(mode="after")
    def _one_of(self) -> SqlRows:
        if (self.query is None) == (self.table is None):
            raise ValueError("sql needs one of query and table")
        if self.split_by is None and {"parts", "parallel"} & self.model_fields_set:
            raise ValueError("sql.parts and sql.parallel go with split_by")
        return self


class CassandraRows(StepConfig):
    """How a table of Cassandra is read."""

    parts: Annotated[int, Field(ge=1, le=100_000, description="Ranges of tokens that the rows are read by.")] = 32
    parallel: Annotated[int, Field(ge=1, le=32, description="Ranges that are read at the same time.")] = 4
    fetch: Annotated[int, Field(ge=10, le=100_000, description="Rows of one page of an answer.")] = 5000


class HttpPages(StepConfig):
    """How one page of a web service's answer leads to the next."""

    by: Annotated[
        Literal["link", "next", "cursor", "number", "offset"],
        Field(
            description="link: the header Link with rel=next; next: an address in the answer; cursor: a word of the "
            "answer that is sent back; number, offset: a parameter that counts pages or rows, until a page is empty."
        ),
    ]
    field: Annotated[
        str | None,
        Field(min_length=1, description="Where the answer has it, as paging.next.", examples=["paging.next"]),
    ] = None
    param: Annotated[str | None, Field(min_length=1, description="The parameter. Default: cursor, page or offset.")] = (
        None
    )
    first: Annotated[int | None, Field(ge=0, description="The first page's number. Default: 1, of offset 0.")] = None
    size: Annotated[int | None, Field(ge=1, description="Rows of a page; sent as size_param.")] = None
    size_param: Annotated[str | None, Field(min_length=1, examples=["limit"])] = None
    at_most: Annotated[int, Field(ge=1, description="More pages than this are a fault.")] = 100_000

    @model_validator(mode="after")
    def _fits(self) -> HttpPages:
        if (self.by in ("next", "cursor")) != (self.field is not None):
            raise ValueError("field goes with by: next and by: cursor, which need it")
        if self.param and self.by in ("link", "next"):
            raise ValueError(f"param does not go with by: {self.by}")
        if self.first is not None and self.by not in ("number", "offset"):
            raise ValueError(f"first does not go with by: {self.by}")
        if self.size_param and self.size is None:
            raise ValueError("size_param needs size")
        return self


class HttpRows(StepConfig):
    """Rows of a web service that answers in JSON, page by page."""

    records: Annotated[
        str | None,
        Field(
            min_length=1, description="Where an answer has its list of rows, as data.items. Default: it is the list."
        ),
    ] = None
    pages: Annotated[HttpPages | None, Field(description="How to come to the next page. Default: there is one.")] = None
    headers: Annotated[
        dict[str, str], Field(description="Headers of each request; who asks is said by a connection.")
    ] = {}

    @model_validator(mode="after")
    def _no_secrets(self) -> HttpRows:
        secret = [name for name in self.headers if name.lower() in ("authorization", "cookie", "x-api-key")]
        if secret:
            raise ValueError(f"{secret[0]} must not stand in a pipeline; give it by a connection")
        return self


#: More values of one image than this have no place in a table.
MOST_PIXELS = 16_384


class ImageRows(StepConfig):
    """How images of a folder become rows: one column a pixel (and colour)."""

    size: Annotated[
        list[Annotated[int, Field(ge=1)]],
        Field(
            min_length=2,
            max_length=2,
            description="Width and height that every image is resized to.",
            examples=[[28, 28]],
        ),
    ]
    color: Annotated[Literal["gray", "rgb"], Field(description="One value a pixel, or three.")] = "gray"
    labels: Annotated[
        str,
        Field(
            min_length=1,
            description="folders: the folder that an image lies in; none; or a CSV of the pipeline's folder with the "
            "columns file and that of label:.",
            examples=["folders", "labels.csv"],
        ),
    ] = "folders"
    scale: Annotated[
        Literal["0..1", "-1..1", "0..255"], Field(description="The range that a pixel's values are brought to.")
    ] = "0..1"
    parallel: Annotated[int, Field(ge=1, le=32, description="Images that are read at the same time.")] = 2

    @model_validator(mode="after")
    def _small_enough(self) -> ImageRows:
        values = self.size[0] * self.size[1] * (3 if self.color == "rgb" else 1)
        if values > MOST_PIXELS:
            raise ValueError(f"{values:,} values an image are more than the {MOST_PIXELS:,} that a table takes")
        return self
