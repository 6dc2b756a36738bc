"""How ``ingest`` reads rows that do not stand in a file: the keys beside ``source`` that belong to one kind of it."""

from __future__ import annotations

import re
from typing import Annotated

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
            "highest value, and adds them to the rows that it has.",
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
