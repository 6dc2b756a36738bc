"""``edgewright docs``: a page per pipeline, and an index."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.cli.output import count
from edgewright.errors import SpecError
from edgewright.spec.render import page, starts


@click.command("docs")
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("site"),
              show_default=True, help="Folder for the pages.")  # fmt: skip
def command(paths: tuple[Path, ...], output: Path) -> None:
    """Write a Markdown page for each pipeline below PATHS (default: dags/), and an index."""
    from edgewright.spec import check_tree

    checked = check_tree(list(paths) or [Path("dags")])
    faults = [fault for _, found in checked if isinstance(found, list) for fault in found]
    if faults:
        raise SpecError(faults)
    output.mkdir(parents=True, exist_ok=True)
    lines = ["# Pipelines", "", "| pipeline | starts | description |", "|---|---|---|"]
    for _, pipeline in checked:
        assert not isinstance(pipeline, list), "faults were raised above"
        (output / f"{pipeline.dag_id}.md").write_text(page(pipeline))
        about = str(pipeline.arguments.get("description", "")).replace("|", "\\|").replace("\n", " ")
        lines.append(f"| [{pipeline.dag_id}]({pipeline.dag_id}.md) | {starts(pipeline)} | {about} |")
    (output / "index.md").write_text("\n".join(lines) + "\n")
    click.echo(f"wrote {count(len(checked), 'page')} and an index to {output}")
