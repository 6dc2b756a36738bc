"""``edgewright schema``: the JSON Schema of the pipeline language, for editors and other tools."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("schema")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to a file instead.")
def command(output: Path | None) -> None:
    """Print the JSON Schema of the pipeline language.

    Editors complete and underline with it: name the file in the first line of a pipeline as
    "# yaml-language-server: $schema=pipeline.schema.json".
    """
    from edgewright.spec import pipeline_schema

    text = json.dumps(pipeline_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    click.echo(f"wrote {output}")
