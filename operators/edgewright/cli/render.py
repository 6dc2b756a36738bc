"""``edgewright render``: a pipeline as Airflow YAML, Python, a graph or a page."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.spec import render as forms

_FORMS = {
    "airflow": (forms.airflow_yaml, "YAML Dag of Airflow 3.4"),
    "python": (forms.python, "hand-written Dag"),
    "mermaid": (forms.mermaid, "graph as Mermaid text"),
    "page": (forms.page, "Markdown page for people"),
}


@click.command("render")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--as", "form", type=click.Choice(list(_FORMS)), default="airflow", show_default=True,
              help="; ".join(f"{name}: {text}" for name, (_, text) in _FORMS.items()))  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of printing."
)
def command(file: Path, form: str, output: Path | None) -> None:
    """Show what a pipeline FILE stands for."""
    from edgewright.spec import load_pipeline

    text = _FORMS[form][0](load_pipeline(file))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)
        click.echo(f"wrote {output}", err=True)
