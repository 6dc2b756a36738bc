"""Rows of an SQL database by SQLAlchemy, with a cursor on the server: memory is that of a few thousand rows.

The database is only read from: a transaction is read-only where the database knows such ones, and always rolled back.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from edgewright.errors import ConfigError, DataError, Unavailable
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.spec.steps.row_sources import SqlRows
from edgewright.steps.connections import Credentials
from edgewright.steps.context import StepContext
from edgewright.steps.row_sources import Part, RowSource
from edgewright.steps.row_values import batch_of, decode_value, encode_value, kind_of_type

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Select

#: Settings of a connection that drivers take from an address; others in Airflow's ``extra`` are for its own hooks.
_EXTRA = ("sslmode", "sslrootcert", "sslcert", "sslkey", "options", "application_name", "charset", "connect_timeout")
_LOW, _HIGH, _FIRST, _LAST = "ew_low", "ew_high", "ew_first", "ew_last"


class SqlSource(RowSource):
    """Rows of a table or a query.

    Args:
        config: The step's configuration, with ``sql``.
        context: The step.
        after: Only rows whose watermark is above this; ``None``: all.

    Attributes:
        highest: The highest watermark that :meth:`parts` found; rows above it are the next run's.

    Raises:
        ConfigError: the driver is not installed, or the connection is not there.
    """

    def __init__(self, config: IngestConfig, context: StepContext | None, after: Any = None) -> None:
        assert config.sql is not None
        self.sql: SqlRows = config.sql
        url = database_url(config.address, config.connection, context)
        self.shown = f"{_without_user(url)}#{self.sql.table or 'query'}"
        self.parallel = self.sql.parallel if self.sql.split_by else 1
        self._columns = config.columns
        self._engine = open_engine(url)
        self._after = after
        self.begins = None if after is None else encode_value(after)
        self.highest: Any = None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def describe(self) -> dict[str, Any]:
        """Return the watermark, where there is one."""
        if self.sql.watermark is None:
            return {}
        return {"watermark": {"column": self.sql.watermark, "value": str(self.highest)}}

    def primary_key(self) -> dict[str, str]:
        """Return the columns of the table's primary key with their types; nothing of a query, or where it has none.

        Raises:
            DataError: there is no such table.
        """
        from sqlalchemy import inspect

        if self.sql.table is None:
            return {}
        schema, _, name = self.sql.table.rpartition(".")
        with explained(self.shown):
            found = inspect(self._engine)
            if not (found.has_table(name, schema=schema or None) or name in found.get_view_names(schema or None)):
                raise DataError("there is no such table", where=self.shown)
            key = found.get_pk_constraint(name, schema=schema or None)["constrained_columns"]
            types = {column["name"]: str(column["type"]) for column in found.get_columns(name, schema=schema or None)}
        return {column: types[column] for column in key}

    def column_kinds(self) -> dict[str, str]:
        """Return a dataset's types of the table's columns, where they follow from its own; none of a query."""
        from sqlalchemy import inspect

        if self.sql.table is None:
            return {}
        schema, _, name = self.sql.table.rpartition(".")
        with explained(self.shown):
            columns = inspect(self._engine).get_columns(name, schema=schema or None)
        found: dict[str, str] = {}
        for column in columns:
            with contextlib.suppress(NotImplementedError, DataError):  # a type that no library or dataset knows
                found[column["name"]] = kind_of_type(column["type"].python_type, column["name"], self.shown)
        return found

    # -- parts -------------------------------------------------------------------------------------------------

    def parts(self) -> list[Part]:
        """Return the ranges of ``split_by``; one part without it, none where no row is above the watermark."""
        with self._connect() as connection:
            if self.sql.watermark and not self._find_highest(connection):
                return []
            bounds = {} if self.highest is None else {"high": encode_value(self.highest)}
            if self._after is not None:
                bounds["low"] = encode_value(self._after)
            if self.sql.split_by is None:
                return [Part("0000", bounds)]
            edges = self._edges(connection, bounds)
        return [
            Part(f"{number:04}", {**bounds, "first": first, "last": last, "nulls": number == 0})
            for number, (first, last) in enumerate(edges)
        ]

    def planned(self, parts: list[Part]) -> None:
        """Take the highest watermark from the parts: rows that came since are the next run's."""
        if parts and "high" in parts[0].at:
            self.highest = decode_value(parts[0].at["high"])

    def _find_highest(self, connection: Connection) -> bool:
        from sqlalchemy import column, func, select

        mark: Any = column(str(self.sql.watermark))
        statement = select(func.max(mark)).select_from(self._from())
        if self._after is not None:
            statement = statement.where(mark > self._after)
        self.highest = connection.execute(statement).scalar()
        return self.highest is not None

    def _edges(self, connection: Connection, bounds: dict[str, Any]) -> list[tuple[Any, Any]]:
        from sqlalchemy import column, func, select

        split: Any = column(str(self.sql.split_by))
        statement = self._above_watermark(select(func.min(split), func.max(split)).select_from(self._from()), bounds)
        low, high = connection.execute(statement).one()
        if low is None:
            return [(None, None)]
        edges = [encode_value(edge) for edge in _evenly(low, high, self.sql.parts, str(self.sql.split_by))]
        return list(zip(edges, [*edges[1:], None], strict=True))

    # -- rows --------------------------------------------------------------------------------------------------

    def read(self, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield a part's rows, ``fetch`` at a time."""
        statement = self._statement(part)
        with self._connect() as connection:
            result = connection.execution_options(stream_results=True, max_row_buffer=self.sql.fetch).execute(statement)
            names = list(result.keys())
            yield batch_of(names, [], self.shown)
            for rows in result.partitions(self.sql.fetch):
                yield batch_of(names, rows, self.shown)

    def _statement(self, part: Part) -> Any:
        from sqlalchemy import column, literal_column, select

        if self.sql.query and not part.at and self._columns is None:
            return _text(self.sql.query)  # as it stands, with its order
        columns: Any = [column(name) for name in self._columns] if self._columns else [literal_column("*")]
        statement = self._above_watermark(select(*columns).select_from(self._from()), part.at)
        first, last = part.at.get("first"), part.at.get("last")
        if first is not None:
            split: Any = column(str(self.sql.split_by))
            inside = split >= decode_value(first)
            if last is not None:
                inside = inside & (split < decode_value(last))
            statement = statement.where(inside | split.is_(None) if part.at["nulls"] else inside)
        return statement

    def _above_watermark(self, statement: Select[Any], at: dict[str, Any]) -> Select[Any]:
        from sqlalchemy import column

        if self.sql.watermark and "high" in at:
            mark: Any = column(self.sql.watermark)
            statement = statement.where(mark <= decode_value(at["high"]))
            if "low" in at:
                statement = statement.where(mark > decode_value(at["low"]))
        return statement

    def _from(self) -> Any:
        from sqlalchemy import table, text

        if self.sql.table is not None:
            schema, _, name = self.sql.table.rpartition(".")
            return table(name, schema=schema or None)
        return text(f"({_escaped(str(self.sql.query))}) ew_query")

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Connection]:
        with explained(self.shown):
            options: dict[str, Any] = {}
            if self._engine.dialect.name == "postgresql":
                options = {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"}
            with self._engine.connect().execution_options(**options) as connection:
                yield connection


def _without_user(url: URL) -> str:
    from sqlalchemy import URL

    return str(URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database))


def _escaped(query: str) -> str:
    """Return a query in which a colon is a colon, not the beginning of a parameter of SQLAlchemy's."""
    return query.strip().rstrip(";").replace(":", "\\:")


def _text(query: str) -> Any:
    from sqlalchemy import text

    return text(_escaped(query))


def _evenly(low: Any, high: Any, parts: int, name: str) -> list[Any]:
    """Return where the parts of a range begin.

    Raises:
        DataError: the values are neither numbers nor times.
    """
    if isinstance(low, int):
        steps = sorted({low + (high + 1 - low) * number // parts for number in range(parts)})
        return [step for step in steps if step <= high]
    if isinstance(low, (datetime.date, float)) or hasattr(low, "as_tuple"):
        return sorted({low + (high - low) * number / parts for number in range(parts)})
    raise DataError(
        f"split_by: {name} holds neither numbers nor times", hint="split by another column, or leave it out"
    )


# -- connections -----------------------------------------------------------------------------------------------


def database_url(address: str, connection: str | None, context: StepContext | None) -> URL:
    """Return SQLAlchemy's address of a database: what the address leaves out comes from an Airflow connection.

    Raises:
        ConfigError: it cannot be read, or the connection is not there.
        DataError: an SQLite file is not there.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"not an address of a database: {error}", where="source") from error
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, context)
    url = url.set(drivername=_driver(url.drivername))
    if connection is not None:
        found = Credentials.of(connection, "postgres://USER:PASSWORD@HOST:5432/DATABASE")
        extra = {name: str(found.extra[name]) for name in _EXTRA if found.extra.get(name)}
        url = url.set(
            username=url.username or found.login or None, password=found.password or None,
            host=url.host or found.host or None, port=url.port or found.port,
            database=url.database or found.schema or None,
        ).update_query_dict(extra)  # fmt: skip
    return url


def _sqlite(url: URL, context: StepContext | None) -> URL:
    from pathlib import Path

    if not url.database or url.database == ":memory:":
        raise ConfigError("names no file", where="source", hint="sqlite:///heart.db stands in the pipeline's folder")
    path = Path(url.database)
    if not path.is_absolute():
        if context is None:
            raise ConfigError("a path must be absolute here", where="source")
        path = context.path(url.database)
    elif not path.exists():
        raise DataError("no such file", where=str(path))
    return url.set(database=str(path))


def _driver(name: str) -> str:
    """Return a drivername whose driver is there: PostgreSQL, MySQL and MariaDB have two each that are common."""
    name = "postgresql" if name == "postgres" else name
    if name == "postgresql" and importlib.util.find_spec("psycopg") is None and importlib.util.find_spec("psycopg2"):
        return "postgresql+psycopg2"
    if name in ("mysql", "mariadb") and importlib.util.find_spec("MySQLdb") is None:
        return f"{name}+pymysql"
    return name


def open_engine(url: URL) -> Engine:
    """Return an engine; nothing is asked yet.

    Raises:
        ConfigError: the driver is not installed.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    try:
        return create_engine(url, poolclass=NullPool)
    except (ImportError, NoSuchModuleError) as error:
        hint = f"install the driver of {url.drivername}"
        if url.get_backend_name() == "postgresql":
            hint = 'pip install "edgewright[postgres]"'
        elif url.get_backend_name() in ("mysql", "mariadb"):
            hint = 'pip install "edgewright[mysql]"'
        raise ConfigError(f"the database's driver is not here: {error}", where="source", hint=hint) from error


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn a database's errors into ours.

    Raises:
        DataError: it refuses the statement or the user.
        Unavailable: it does not answer, or the connection broke.
    """
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

    try:
        yield
    except (OperationalError, InterfaceError) as error:
        text = _first_line(error)
        if any(word in text for word in ("password", "authentication", "Access denied", "does not exist", "no such")):
            hint = "check the connection's user and password, and the names"
            raise DataError(f"the database refuses: {text}", where=where, hint=hint) from error
        raise Unavailable(f"the database does not answer: {text}", where=where) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable(f"the connection broke: {_first_line(error)}", where=where) from error
        hint = "try the query in the database's own client"
        raise DataError(f"the database refuses: {_first_line(error)}", where=where, hint=hint) from error
    except SQLAlchemyError as error:
        raise DataError(f"not a statement that can be sent: {_first_line(error)}", where=where) from error


def _first_line(error: Exception) -> str:
    """Return a driver's own words, without the statement and its values."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0][:300]
