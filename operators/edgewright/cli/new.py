"""``edgewright new``: a folder with a pipeline that runs at once, made around a CSV file."""

from __future__ import annotations

import csv
import json
import shutil
from importlib import resources
from pathlib import Path

import click

from edgewright.cli.new_notebook import Explored, explore, params_yaml, program_yaml
from edgewright.cli.output import did_you_mean
from edgewright.errors import ConfigError, DataError

#: Rows of the CSV that are looked at to tell a class from a number.
_LOOKED_AT = 2000


@click.command("new")
@click.argument("name")
@click.option(
    "--data", type=click.Path(dir_okay=False, path_type=Path), help="CSV file with a header line; it is copied."
)
@click.option("--label", help="Column that is to be predicted. Default: the last one.")
@click.option("--dags", type=click.Path(file_okay=False, path_type=Path), default=Path("dags"), show_default=True,
              help="Folder of the pipelines.")  # fmt: skip
@click.option("--description", default="", help="One line about it.")
@click.option("--from-notebook", "notebook", type=click.Path(dir_okay=False, path_type=Path),
              help="Notebook that trains the model; its parameters become the pipeline's.")  # fmt: skip
def command(
    name: str, data: Path | None, label: str | None, dags: Path, description: str, notebook: Path | None
) -> None:
    """Make a pipeline NAME around a CSV file, or around a notebook and the CSV file that it reads.

    \b
    edgewright new hearts --data cleveland.csv --label num
    edgewright new hearts --from-notebook explore.ipynb --label num
    edgewright run dags/hearts/pipeline.yaml
    """  # noqa: D301 - click reads the \\b
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"{name!r} is not a name", hint="letters, digits, - and _")
    explored = explore(notebook) if notebook is not None else None
    if data is None and explored is not None:
        data = explored.data
    if data is None:
        data = Path(str(click.prompt("CSV file", type=click.Path(exists=True, dir_okay=False))))
    columns, rows = _look(data)
    label = label or columns[-1]
    if label not in columns:
        raise DataError(f"no column {label}{did_you_mean(label, columns)}", where=str(data), hint=", ".join(columns))
    folder = dags / name
    if folder.exists():
        raise ConfigError(f"{folder} is there already", hint="choose another name, or remove it first")
    by_name = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
    left_out = [column for column in columns if column != label and not _is_useful(by_name[column])]
    kept = [column for column in columns if column not in left_out] if left_out else []
    if explored is not None and notebook is not None:
        kept = []  # the notebook reads the columns that it wants
        values = {"notebook": json.dumps(notebook.name), "params": params_yaml(explored.parameters, explored.path),
                  "program": program_yaml(explored)}  # fmt: skip
        _write(folder, name, data, label, _is_class(by_name[label]), description, kept, "notebook", values)
        (folder / notebook.name).write_text(json.dumps(explored.document, indent=1, ensure_ascii=False) + "\n")
        _tell(explored, folder, notebook.name, data.name)
        return
    _write(folder, name, data, label, _is_class(by_name[label]), description, kept, "tabular", {})
    if left_out:
        click.echo(f"left out: {', '.join(left_out)} (text with gaps or with many different values); see columns:")
    click.echo(f"made {folder}: pipeline.yaml, model.py, {data.name}")
    click.echo(f"next: edgewright run {folder / 'pipeline.yaml'}")


def _tell(explored: Explored, folder: Path, notebook: str, data: str) -> None:
    """Say what was made of a notebook, and what nobody could tell."""
    click.echo(f"made {folder}: pipeline.yaml, {notebook}, {data}")
    if explored.tagged:
        click.echo(f"cell {explored.tagged} holds the parameters: it was given the tag parameters")
    if explored.path is None:
        click.echo("no parameter names the data: let the notebook read $EDGEWRIGHT_INPUT/train.parquet, or give it one")
    if explored.returns is None:
        click.echo("which variable holds the fitted model? say it by returns: in the task model")
    click.echo(f"next: edgewright check {folder}, edgewright run {folder / 'pipeline.yaml'}")


def _look(data: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the first rows.

    Raises:
        DataError: there is no such file, or it holds no rows.
    """
    if not data.is_file():
        raise DataError("no such file", where=str(data))
    with data.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        columns = next(reader, [])
        rows = [row for _, row in zip(range(_LOOKED_AT), reader, strict=False) if len(row) == len(columns)]
    if not columns or not rows:
        raise DataError("needs a header line and rows", where=str(data))
    return columns, rows


def _is_class(values: list[str]) -> bool:
    """Whether a label is a class: text, or at most 50 different whole numbers."""
    found = {value for value in values if value}
    return len(found) <= 50 and not any(_is_decimal(value) for value in found)


def _is_useful(values: list[str]) -> bool:
    """Whether a column can be a feature as it is: numbers, or text with few different values and without gaps."""
    if all(_is_number(value) for value in values if value):
        return any(values)
    return all(values) and len(set(values)) <= min(20, len(values) // 2)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_decimal(value: str) -> bool:
    try:
        return not float(value).is_integer()
    except (ValueError, OverflowError):
        return False


def _write(
    folder: Path,
    name: str,
    data: Path,
    label: str,
    is_class: bool,
    description: str,
    kept: list[str],
    skeleton: str,
    more: dict[str, str],
) -> None:
    classes = {
        "estimator": "LogisticRegression",
        "arguments": "max_iter=1000, random_state=seed",
        "gate": 'accuracy: ">= 0.5"',
        "stratify": ", stratify: true",
    }
    numbers = {
        "estimator": "Ridge",
        "arguments": "random_state=seed",
        "gate": 'r2: ">= 0"',
        "stratify": "",
    }
    values = {
        "name": name,
        "source": json.dumps(data.name),
        "label": json.dumps(label),
        "columns": f"\n      columns: {json.dumps(kept)}" if kept else "",
        "description": description or f"Predicts {label}",
        **(classes if is_class else numbers),
        **more,
    }
    folder.mkdir(parents=True)
    for file in resources.files("edgewright.cli").joinpath(f"skeletons/{skeleton}").iterdir():
        text = file.read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        (folder / file.name.removesuffix(".tmpl")).write_text(text)
    shutil.copyfile(data, folder / data.name)
