"""``edgewright convert``: dag-factory's YAML in our language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_DEFAULTS = ("defaults.yml", "defaults.yaml")


@click.command("convert")
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write into, one folder per Dag. Default: print.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was converted, and what was not, as JSON.")
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Convert dag-factory 1.x FILES to pipelines.

    Every Dag becomes a pipeline.yaml in a folder of its own. What cannot be converted is listed with its line and kept
    as a comment; a task that lost its work fails when it runs. Ends with 1 if anything could not be converted.
    """
    from edgewright.cli.output import count, print_json

    rows = [row for file in files for row in _convert(file, output)]
    _refuse_double(rows, output)
    for row in rows:
        if output is not None:
            row["path"].parent.mkdir(parents=True, exist_ok=True)
            row["path"].write_text(row["text"], encoding="utf-8")
    lost = sum(len(row["losses"]) for row in rows)
    if as_json:
        print_json({"not_converted": lost, "pipelines": [_shown(row, output) for row in rows]})
        ctx.exit(1 if lost else 0)
    for row in rows:
        click.echo(f"wrote {row['path']}" if output is not None else row["text"], nl=output is not None)
        for loss in row["losses"]:
            click.echo(f"{row['file']}:{loss.line}: {row['dag_id']}: {loss.path}: {loss.reason}", err=True)
    click.echo(f"{count(len(rows), 'Dag')}, {count(lost, 'thing')} not converted", err=True)
    ctx.exit(1 if lost else 0)


def _convert(file: Path, output: Path | None) -> list[dict[str, Any]]:
    from edgewright.errors import ConfigError
    from edgewright.spec.convert import convert

    try:
        text = file.read_text(encoding="utf-8")
        beside = next((file.with_name(name) for name in _DEFAULTS if file.with_name(name).is_file()), None)
        defaults = beside.read_text(encoding="utf-8") if beside and beside != file else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(file)) from error
    found = convert(text, file, defaults, folder=output)
    if not found:
        raise ConfigError("no Dag here", where=str(file), hint="a dag-factory document maps names to Dags")
    return [{"file": file, "dag_id": dag.dag_id, "text": dag.text, "losses": dag.losses} for dag in found]


def _refuse_double(rows: list[dict[str, Any]], output: Path | None) -> None:
    """Give every Dag its place, and refuse to write over anything."""
    from edgewright.errors import ConfigError

    if output is None:
        return
    seen: set[Path] = set()
    for row in rows:
        row["path"] = place = output / row["dag_id"] / "pipeline.yaml"
        if place in seen or place.exists():
            raise ConfigError(f"{place} is there already", hint="nothing was written; choose another --output")
        seen.add(place)


def _shown(row: dict[str, Any], output: Path | None) -> dict[str, Any]:
    from edgewright.spec.convert import normal_value

    losses = [
        {"line": loss.line, "path": loss.path, "reason": loss.reason, "value": normal_value(loss.value)}
        for loss in row["losses"]
    ]
    place = {"path": str(row["path"])} if output is not None else {"text": row["text"]}
    return {"file": str(row["file"]), "dag_id": row["dag_id"], **place, "not_converted": losses}
