"""A dataset's profile as one page with plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright.steps.plots import heat_map, histogram
from edgewright.steps.reports import Report, Table
from edgewright.steps.row_source_images import SHEET

#: Columns that get a histogram; a page with thousands of them helps nobody.
_PLOTTED = 40


def page(found: dict[str, Any], title: str, folder: Path | None = None) -> Report:
    """Return the page of a profile.

    Args:
        found: What :func:`~edgewright.steps.profile.profile` returned.
        title: What was looked at.
        folder: The dataset's folder, for the sheet of images that may lie there.
    """
    charts: dict[str, bytes] = {}
    if folder is not None and (folder / SHEET).is_file():
        charts["preview"] = (folder / SHEET).read_bytes()
    for column in [c for c in found["columns"] if "histogram" in c or "frequent" in c][:_PLOTTED]:
        charts[column["name"]] = histogram(column)
    if found["correlations"]["columns"]:
        charts["correlations"] = heat_map(found["correlations"]["columns"], found["correlations"]["values"])
    parts = ", ".join(f"{part} {rows:,}" for part, rows in found["parts"].items())
    note = "" if found["sampled"] == found["rows"] else f"Quantiles and plots are those of {found['sampled']:,} rows."
    examples = Table(
        "Examples", list(found["examples"][0]) if found["examples"] else [""],
        [[_cell(value) for value in row.values()] for row in found["examples"]],
    )  # fmt: skip
    return Report(
        f"Profile of {title}",
        f"{found['rows']:,} rows ({parts}), {len(found['columns'])} columns",
        tables=[Table("Columns", HEAD, [column_row(column) for column in found["columns"]], note), examples],
        charts=charts,
        data=found,
    )


HEAD = ("column", "type", "missing", "distinct", "minimum", "5 %", "median", "95 %", "maximum", "mean", "deviation")


def column_row(column: dict[str, Any]) -> list[Any]:
    """Return a column's row of the table with the head :data:`HEAD`."""
    marks = column.get("quantiles", {})
    return [
        column["name"], column["type"], column["missing"], column["distinct"], _cell(column["minimum"]),
        marks.get("0.05"), marks.get("0.5"), marks.get("0.95"), _cell(column["maximum"]), column.get("mean"),
        column.get("deviation"),
    ]  # fmt: skip


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float)) else str(value)[:60]
