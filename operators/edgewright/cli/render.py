"""``edgewright render``: a pipeline as Airflow YAML, Python, a graph, a page, or manifests of its nodes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import click

from edgewright.errors import ConfigError
from edgewright.spec import render as forms
from edgewright.spec.pipeline import Pipeline

#: What each format is, and what makes it.
_TEXTS: dict[str, tuple[Callable[[Pipeline], str], str]] = {
    "yaml": (forms.airflow_yaml, "YAML Dag of Airflow 3.4"),
    "python": (forms.python, "hand-written Dag"),
    "mermaid": (forms.mermaid, "graph as Mermaid text"),
    "page": (forms.page, "Markdown page for people"),
}
_PICTURES = {"svg": "graph as a picture", "png": "graph as a picture, needs --output"}
_MANIFESTS = {"kubernetes": "what deploy gives a cluster of nodes"}
_SUFFIXES = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".mmd": "mermaid", ".mermaid": "mermaid", ".md": "page",
             ".svg": "svg", ".png": "png"}  # fmt: skip
_HELP = "; ".join([*(f"{name}: {text}" for name, (_, text) in _TEXTS.items()),
                   *(f"{name}: {text}" for name, text in (_PICTURES | _MANIFESTS).items())])  # fmt: skip


@click.command("render")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice([*_TEXTS, *_PICTURES, *_MANIFESTS]),
              help=f"{_HELP}. Default: what the name of --output ends with, else yaml.")  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of printing."
)
@click.option("--dag-id", metavar="ID", help="Which pipeline, where the file holds several.")
@click.option("-e", "--environment", metavar="NAME", help="Which of its environments:. Default: the installation's.")
def command(file: Path, form: str | None, output: Path | None, dag_id: str | None, environment: str | None) -> None:
    """Show what a pipeline FILE stands for."""
    from edgewright.spec import load_pipeline

    form = form or _format_of(output)
    if form == "png" and output is None:
        raise click.UsageError("a PNG is no text for a terminal; name a file: --output graph.png")
    pipeline = load_pipeline(file, dag_id=dag_id, environment=environment)
    data = _rendered(pipeline, form)
    if output is None:
        click.echo(data.decode(), nl=False)
        return
    if output.resolve() == file.resolve():
        raise ConfigError("this is the pipeline itself", where=str(output), hint="name another file for --output")
    _write(output, data)
    click.echo(f"wrote {output}", err=True)


def _format_of(output: Path | None) -> str:
    if output is None:
        return "yaml"
    if (form := _SUFFIXES.get(output.suffix.lower())) is None:
        raise click.UsageError(f"which format is {output.name}? Say --format, or end its name with one of: "
                               f"{', '.join(sorted(_SUFFIXES))}")  # fmt: skip
    return form


def _rendered(pipeline: Pipeline, form: str) -> bytes:
    if form in _TEXTS:
        return _TEXTS[form][0](pipeline).encode()
    if form in _MANIFESTS:
        from edgewright.cli.manifests import manifests

        return manifests(pipeline)
    from edgewright.cli.picture import picture

    return picture(pipeline, form)


def _write(output: Path, data: bytes) -> None:
    """Write a file in one step.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, output)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(output)) from error
    finally:
        temporary.unlink(missing_ok=True)
