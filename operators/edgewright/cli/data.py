"""``edgewright data``: dataset versions of this installation, shown, compared, profiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.output import print_json
from edgewright.errors import ConfigError

if TYPE_CHECKING:
    from edgewright.cli.dataset_versions import DatasetVersion

_NAME = "NAME: PIPELINE or PIPELINE/TASK, with @DIGEST or @RUN behind it for another version than the newest."
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group("data", epilog=_NAME)
def command() -> None:
    """Show, compare and profile versions of datasets; see docs/data.md."""


@command.command("show", epilog=_NAME)
@click.argument("name")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show a version: where it comes from, its parts and columns, and the other versions that there are."""
    from edgewright.cli.dataset_versions import datasets

    version = _version(name)
    others = datasets(version.dag_id, version.task_id)
    manifest = version.open().manifest
    if as_json:
        known = [{"digest": one.sha256, "run": one.run_id, "made": one.made, "rows": one.ref.meta.get("rows"),
                  "erased": one.erased or None, "expired": one.expired or None}
                 for one in others]  # fmt: skip
        print_json({"name": str(version), "run": version.run_id, "made": version.made, "manifest": manifest,
                    "versions": known})  # fmt: skip
        return
    source = manifest["source"]
    click.echo(f"{version}  made {version.made} by run {version.run_id}")
    click.echo(f"source   {source.get('uri', '-')}")
    parts = ", ".join(f"{part} {entry['rows']:,}" for part, entry in manifest["parts"].items())
    click.echo(f"rows     {manifest['rows']:,} ({parts})")
    click.echo(f"label    {manifest['label'] or '-'} ({manifest['problem']})\n")
    head = ("column", "type", "missing", "minimum", "maximum")
    rows = [[c["name"], c["type"], c["missing"], c.get("minimum"), c.get("maximum")] for c in manifest["columns"]]
    click.echo(table(head, rows))
    versions = [[one.sha256[:12], one.run_id, one.made, one.ref.meta.get("rows"), one.erased, one.expired]
                for one in others]  # fmt: skip
    click.echo("\n" + table(("version", "run", "made", "rows", "erased", "expired"), versions))


@command.command("head", epilog=_NAME)
@click.argument("name")
@click.option("-n", "--rows", type=click.IntRange(1, 10_000), default=10, show_default=True, help="So many rows.")
@click.option("--part", help="train, test or holdout. Default: the first that there is.")
@_JSON
def head(name: str, rows: int, part: str | None, as_json: bool) -> None:
    """Print the first rows of a version."""
    from edgewright.steps.profile import plain

    dataset = _version(name).open()
    chosen = part or dataset.part_names[0]
    if chosen not in dataset.part_names:
        raise ConfigError(f"no part {chosen}", where=name, hint=f"it has: {', '.join(dataset.part_names)}")
    found: list[dict[str, Any]] = []
    for batch in dataset.batches(chosen):
        found += batch.slice(0, rows - len(found)).to_pylist()
        if len(found) >= rows:
            break
    if as_json:
        print_json(plain(found))
    else:
        names = [column["name"] for column in dataset.columns]
        click.echo(table(names, [[row[column] for column in names] for row in found]))


@command.command("profile", epilog=_NAME)
@click.argument("name")
@click.option("--part", multiple=True, help="Only this part; may be repeated.")
@click.option("--output", type=click.Path(path_type=Path), help="Write a page with plots here, and the JSON beside it.")
@_JSON
def profile(name: str, part: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Describe every column: quantiles, histograms, frequent values, correlations, examples."""
    from edgewright.steps import profile as profiles
    from edgewright.steps.profile_page import HEAD, column_row, page

    version = _version(name)
    dataset = version.open()
    unknown = [one for one in part if one not in dataset.part_names]
    if unknown:
        raise ConfigError(f"no part {unknown[0]}", where=name, hint=f"it has: {', '.join(dataset.part_names)}")
    found = profiles.profile(dataset, part or None)
    if output is not None:
        _write(page(found, str(version), dataset.folder).html(), found, output)
    if as_json:
        print_json(found)
    elif output is None:
        click.echo(table(HEAD, [column_row(column) for column in found["columns"]]))


@command.command("diff", epilog=_NAME)
@click.argument("before")
@click.argument("after")
@_JSON
def diff(before: str, after: str, as_json: bool) -> None:
    """Say what changed from one version to another: columns, rows, distributions."""
    from edgewright.steps.profile_diff import compare

    found = compare(_version(before).open(), _version(after).open())
    if as_json:
        print_json(found)
        return
    schema = found["schema"]
    for what in ("added", "removed"):
        if schema[what]:
            click.echo(f"columns {what}: {', '.join(schema[what])}")
    for change in schema["changed"]:
        click.echo(f"column {change['name']}: {change['before']} became {change['after']}")
    rows = found["rows"]
    more = f"; {rows['added']:,} new, {rows['removed']:,} gone" if "added" in rows else ""
    click.echo(f"rows {rows['before']:,} -> {rows['after']:,}{more}\n")
    head_ = ("column", "missing", "", "mean", "", "stability index", "")
    click.echo(table(head_, [_change(column) for column in found["columns"]]))


def _change(column: dict[str, Any]) -> list[Any]:
    share, mean = column["missing_share"], column.get("mean", {"before": None, "after": None})
    return [
        column["name"], f"{share['before']:.1%}", f"-> {share['after']:.1%}", mean["before"],
        None if mean["after"] is None else f"-> {_text(mean['after'])}", column["stability_index"], column["verdict"],
    ]  # fmt: skip


def _version(name: str) -> DatasetVersion:
    from edgewright.cli.dataset_versions import dataset

    return dataset(name)


def _write(page: str, found: dict[str, Any], output: Path) -> None:
    """Write a page, and the same as JSON beside it."""
    import json

    target = output if output.suffix == ".html" else output / "profile.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
        target.with_suffix(".json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(target)) from error
    click.echo(f"wrote {target} and {target.with_suffix('.json').name}")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return aligned columns; numbers stand right."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(head)]
    right = [all(isinstance(row[place], (int, float, type(None))) for row in rows) for place in range(len(head))]
    lines = []
    for row in [list(head), *cells]:
        padded = (cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _text(value: Any) -> str:
    from edgewright.steps.reports import number

    return "-" if value is None else number(value) if isinstance(value, (int, float)) else str(value)[:40]
