"""``edgewright score``: predictions for files and tables, without Airflow; the same code as the step ``score``."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.output import count, print_json, seconds

if TYPE_CHECKING:
    from edgewright.steps.context import StepContext
    from edgewright.steps.contract import StepOutput
    from edgewright.steps.score_progress import Progress


@click.command("score")
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option("--to", default="scores", show_default=True, metavar="FOLDER", help="A folder, s3://..., or a table.")
@click.option("--keep", multiple=True, metavar="COLUMN", help="Column to keep beside the predictions. Repeatable.")
@click.option("--output", type=click.Choice(["parquet", "csv", "jsonl"]), help="Default: parquet.")
@click.option("--format", type=click.Choice(["auto", "csv", "parquet", "jsonl"]), help="Default: by the name.")
@click.option("--engine", type=click.Choice(["auto", "onnx", "native"]), default="auto", show_default=True)
@click.option("--allow-pickle", is_flag=True, help="Let the engine native load a registered model's pickle.")
@click.option("--variant", help="Variant of the model. Default: onnx, else the one that is served.")
@click.option("--processes", type=click.IntRange(1), help="Default: one a core.")
@click.option("--shard-mib", type=click.FloatRange(0, 4096, min_open=True), help="Default: 64.")
@click.option("--max-rejected", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Share of rows.")
@click.option("--connection", help="Airflow connection of s3:// or a database, as AIRFLOW_CONN_<ID>.")
@click.option("--table", help="Of a database: the table that is scored.")
@click.option("--query", help="Of a database: a SELECT instead.")
@click.option("--split-by", help="Column by whose ranges rows are read. Default: a primary key of one column.")
@click.option("--parts", type=click.IntRange(1, 1000), help="How many ranges. Default: 8.")
@click.option("--watermark", help="Of a database: a column that grows; only rows above the last run's highest value.")
@click.option("--key", multiple=True, help="Column that tells rows apart. Repeatable. Default: the primary key.")
@click.option("--into", metavar="TABLE", help="Of a database in --to: the table that predictions go into.")
@click.option("--to-connection", help="Airflow connection of a table in --to.")
@click.option("--run", help="Name of a run over a table: the same one goes on where it was. Default: a new one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    model: str,
    files: tuple[str, ...],
    to: str,
    keep: tuple[str, ...],
    as_json: bool,
    run: str | None,
    **options: Any,
) -> None:
    """Score FILES (CSV, Parquet, JSON lines; paths, globs in quotes, s3://..., or one table) with MODEL.

    MODEL is a registered model: NAME (its champion), NAME@ALIAS or NAME/VERSION. What was scored before with the same
    version is not scored again; after Ctrl-C or a crash the same command goes on where it was.
    """
    from edgewright.installation import Installation
    from edgewright.spec.gates import demand
    from edgewright.spec.steps import STEPS
    from edgewright.steps.context import StepContext
    from edgewright.steps.contract import Identity, StepRequest
    from edgewright.steps.execute import validate_config
    from edgewright.steps.score import run as score

    given = _of_tables({name: value for name, value in options.items() if value not in (None, ())})
    given |= {
        "registered": model, "source": [_address(name) for name in files], "to": _address(to), "keep": list(keep),
    }  # fmt: skip
    config: Any = validate_config(STEPS["score"], given)
    installation = Installation.load()
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S-%f")
    request = StepRequest(
        step="score", config=given, identity=Identity(dag_id="command-line", run_id=run or now, task_id="score"),
        store=installation.store, tracking_uri=installation.tracking_uri,
    )  # fmt: skip
    with StepContext(request) as context, _progress(context) as progress:
        output = score(config, context, progress)
    if as_json:
        print_json(_document(output))
    else:
        _tell(output)
    demand(output.gates)


def _of_tables(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as the step has them: those of a table stand together."""
    sql = {name: options.pop(name) for name in ("table", "query", "split_by", "parts", "watermark") if name in options}
    into = options.pop("into", None)
    if "key" in options:
        options["key"] = list(options["key"])
    return {**options, **({"sql": sql} if sql else {}), **({"into": {"table": into}} if into else {})}


def _address(name: str) -> str:
    return name if "://" in name else f"file://{Path(name).expanduser().absolute()}"


def _document(output: StepOutput) -> dict[str, Any]:
    return {**output.tags, **output.metrics, "report": output.outputs["report"].uri}


def _tell(output: StepOutput) -> None:
    metrics, tags = output.metrics, output.tags
    again = f", {count(int(metrics['shards_reused']), 'shard')} from before" if metrics["shards_reused"] else ""
    click.echo(
        f"{metrics['rows']:,.0f} rows scored by {tags['model']} ({tags['engine']}), "
        f"{metrics['rejected']:,.0f} aside{again}; {metrics['rows_per_second']:,.0f} rows/s"
    )
    click.echo(f"predictions: {tags['predictions'].removeprefix('file://')}")
    click.echo(f"report: {output.outputs['report'].uri.removeprefix('file://')}/report.html")


def _progress(context: StepContext) -> Any:
    """Return a context manager with a progress: a bar on a terminal, else a line now and then on standard error."""
    from edgewright.steps.score_progress import Progress

    class Lines(Progress):
        def __enter__(self) -> Progress:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def show(self) -> None:
            share = "" if self.share is None else f" ({self.share:.0%})"
            left = "" if self.left is None else f", ends in about {seconds(self.left)}"
            click.echo(f"{self.rows:,} rows{share}, {self.rate:,.0f} rows/s{left}", err=True)

    class Bar(Lines):
        def __enter__(self) -> Progress:
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("planning", total=None)
            return self

        def __exit__(self, *error: object) -> None:
            self._bar.stop()

        def show(self) -> None:
            text = f"{self.rows:,} rows, {self.rate:,.0f}/s"
            self._bar.update(self._task, total=self.total or None, completed=self.bytes, description=text)

    return Bar(context, every=0.2) if sys.stderr.isatty() else Lines(context)
