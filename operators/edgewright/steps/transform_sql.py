"""SQL over a dataset's files by DuckDB, part by part; what a query learns, it learns from ``train``.

The query sees ``data``, the part at hand, and ``train``. It reaches no other file and no network, its random numbers
are seeded, and one thread does the work: the same dataset and query give the same rows in the same order. Rows come as
a stream, and what a sort or a join cannot hold in memory goes to the task's scratch folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError, UserCodeError
from edgewright.steps.context import StepContext
from edgewright.steps.data import GROUP_ROWS, Dataset
from edgewright.steps.frames import CollectedRows, rows_of

#: How messages name the query.
NAME = "sql"


def apply_sql(query: str, args: dict[str, Any], context: StepContext, dataset: Dataset, rows: CollectedRows) -> None:
    """Add what a query makes of each part.

    Args:
        query: One SELECT.
        args: Its parameters: ``$limit`` in the query is ``limit`` here.
        context: The step.
        dataset: The dataset.
        rows: Where the rows go.

    Raises:
        ConfigError: DuckDB is not installed.
        UserCodeError: the query is none, or fails.
    """
    try:
        import duckdb
    except ImportError as error:
        hint = 'pip install "edgewright[duckdb]"'
        raise ConfigError("sql needs DuckDB, which is not installed here", hint=hint) from error
    for part in dataset.part_names:
        try:
            with _connection(dataset, part, context) as connection:
                _check(connection.extract_statements(query), duckdb)
                relation = connection.sql(query, params=args or None)
                done = 0
                for batch in relation.to_arrow_reader(GROUP_ROWS):
                    rows.add(part, rows_of(batch, NAME), NAME)
                    done += batch.num_rows
                    context.progress(f"transform {part}", done, None, "rows")
                if done == 0:
                    raise UserCodeError(f"sql left no rows of {part}", hint=f"it was given {dataset.rows(part):,}")
        except duckdb.Error as error:
            # DuckDB's own words show the place in the query
            raise UserCodeError(f"sql failed on {part}: {error}", hint=_hint(dataset)) from error


def _connection(dataset: Dataset, part: str, context: StepContext) -> Any:
    import duckdb

    spill = context.scratch / "duckdb"
    spill.mkdir(exist_ok=True)
    connection = duckdb.connect(":memory:", config={"threads": 1, "temp_directory": str(spill)})
    folders = [f"{Path(folder).resolve()}/" for folder in (dataset.folder, spill)]
    connection.execute(f"SET allowed_directories = [{', '.join(map(_quoted, folders))}]")
    connection.execute("SET enable_external_access = false")
    for name, of in (("data", part), ("train", "train")):
        file = Path(dataset.folder, dataset.manifest["parts"][of]["file"]).resolve()
        # the path is ours, and quoted
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({_quoted(str(file))})")  # noqa: S608
    connection.execute("SET lock_configuration = true")
    connection.execute("SELECT setseed(0.5)").fetchall()
    return connection


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _check(statements: list[Any], duckdb: Any) -> None:
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UserCodeError("sql must be one SELECT", hint="SELECT *, age > 60 AS old FROM data")


def _hint(dataset: Dataset) -> str:
    names = ", ".join(column["name"] for column in dataset.columns)
    return f"data and train have: {names}"
