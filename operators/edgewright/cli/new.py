"""``edgewright new``: a folder with a pipeline that runs at once, made around a CSV file."""

from __future__ import annotations

import csv
import json
import shutil
from importlib import resources
from pathlib import Path

import click

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
def command(name: str, data: Path | None, label: str | None, dags: Path, description: str) -> None:
    """Make a pipeline NAME around a CSV file.

    \b
    edgewright new hearts --data cleveland.csv --label num
    edgewright run dags/hearts/pipeline.yaml
    """  # noqa: D301 - click reads the \\b
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"{name!r} is not a name", hint="letters, digits, - and _")
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
    _write(folder, name, data, label, _is_class(by_name[label]), description, kept)
    if left_out:
        click.echo(f"left out: {', '.join(left_out)} (text with gaps or with many different values); see columns:")
    click.echo(f"made {folder}: pipeline.yaml, model.py, {data.name}")
    click.echo(f"next: edgewright run {folder / 'pipeline.yaml'}")


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


def _write(folder: Path, name: str, data: Path, label: str, is_class: bool, description: str, kept: list[str]) -> None:
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
    }
    folder.mkdir(parents=True)
    for file in resources.files("edgewright.cli").joinpath("skeletons/tabular").iterdir():
        text = file.read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        (folder / file.name.removesuffix(".tmpl")).write_text(text)
    shutil.copyfile(data, folder / data.name)
