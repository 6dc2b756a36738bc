"""The graph of a pipeline as a picture: boxes by step, frames around groups, from left to right.

An edge that others imply is left out: where ``model`` needs ``data`` and ``quality`` needs both, one line is enough.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

from edgewright.spec.layout import FRAME, HEADER, Box, Layout, lay_out, reduced
from edgewright.spec.pipeline import Group, Pipeline, Task

INK, PALE, PAPER = "#1f2328", "#59636e", "#ffffff"
#: Border and ground of a box by what its step does.
COLOURS = {
    **dict.fromkeys(("ingest", "fetch", "validate", "transform", "score", "wait"), ("#0969da", "#ddf4ff")),
    "train": ("#8250df", "#fbefff"),
    **dict.fromkeys(("evaluate", "monitor"), ("#9a6700", "#fff8c5")),
    "quantize": ("#bc4c00", "#fff1e5"),
    **dict.fromkeys(("publish", "deploy"), ("#1a7f37", "#dafbe1")),
}
_OTHER = ("#59636e", "#f6f8fa")
_FONT, _SMALL, _TITLE = 10.0, 8.0, 13.0
_MARGIN, _PADDING, _HEIGHT, _TOP, _GAP = 18.0, 12.0, 38.0, 34.0, 12.0
_LONGEST = 36
_POINTS_PER_INCH = 72


def picture(pipeline: Pipeline, kind: str) -> bytes:
    """Return the graph as the bytes of a file; the same pipeline gives the same bytes.

    Args:
        pipeline: What to draw.
        kind: ``png`` or ``svg``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    edges = reduced((up, task.id) for task in pipeline.tasks for up in task.needs)
    layout = _layout(pipeline, edges)
    title, when = _width(pipeline.dag_id, _TITLE, "bold"), _when(pipeline)
    width = max(layout.width, title + _GAP + _width(when, _SMALL)) + 2 * _MARGIN
    height = layout.height + 2 * _MARGIN + _TOP
    figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-_MARGIN, width - _MARGIN)
    axes.set_ylim(height - _MARGIN - _TOP, -_MARGIN - _TOP)
    axes.axis("off")
    style: dict[str, Any] = {"va": "baseline", "parse_math": False}
    axes.text(0, _TITLE - _TOP, pipeline.dag_id, fontsize=_TITLE, color=INK, weight="bold", **style)
    axes.text(title + _GAP, _TITLE - _TOP, when, fontsize=_SMALL, color=PALE, **style)
    _draw(axes, pipeline, layout, edges)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "edgewright", "font.family": "DejaVu Sans"}):
        if kind == "svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Title": pipeline.dag_id})
        else:
            figure.savefig(buffer, format="png", dpi=2 * _POINTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _when(pipeline: Pipeline) -> str:
    if isinstance(pipeline.schedule, str):
        return pipeline.schedule
    return "by hand" if pipeline.schedule is None else "by its timetable or assets"


def _layout(pipeline: Pipeline, edges: Sequence[tuple[str, str]]) -> Layout:
    boxes = [Box(task.id, _box_width(_lines(task)), _HEIGHT, task.group) for task in pipeline.tasks]
    return lay_out(boxes, [Box(group.id, parent=group.parent) for group in pipeline.groups], edges)


def _lines(task: Task) -> tuple[str, str]:
    """Return what stands in a box: the id within its group, and what it does."""
    about = task.does.rsplit(".", 1)[-1]
    marks = [mark for mark, there in (
        (_times(task), task.for_each is not None), ("setup", task.setup), ("teardown", task.teardown is not None)
    ) if there]  # fmt: skip
    return _short(task.id.rsplit(".", 1)[-1]), _short(" · ".join([about, *marks]))


def _times(entry: Task | Group) -> str:
    items = entry.for_each.items if entry.for_each else None
    return f"x {len(items)}" if items is not None else "x n"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 + 1 :]}"


def _box_width(lines: Sequence[str]) -> float:
    return max(70.0, _width(lines[0], _FONT, "bold"), _width(lines[1], _SMALL)) + 2 * _PADDING


@cache
def _width(text: str, size: float, weight: str = "normal") -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    font = FontProperties(family="DejaVu Sans", weight=weight)
    # a dollar sign would be read as mathematics
    return float(TextPath((0, 0), text.replace("$", "S"), size=size, prop=font).get_extents().width)


# -- drawing -------------------------------------------------------------------------------------------------------


def _draw(axes: Any, pipeline: Pipeline, layout: Layout, edges: Sequence[tuple[str, str]]) -> None:
    groups = {group.id: group for group in pipeline.groups}
    for depth, (name, box) in enumerate(layout.groups.items()):
        _draw_frame(axes, groups[name], box, depth)
    for source, target in edges:
        _draw_edge(axes, layout.boxes[source], layout.boxes[target], layout.bends.get((source, target), []))
    for task in pipeline.tasks:
        _draw_box(axes, task, layout.boxes[task.id])


def _draw_frame(axes: Any, group: Group, box: Box, depth: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=6", facecolor="#f6f8fa",
            edgecolor="#b6bec7", linestyle=(0, (4, 2)), zorder=1 + depth / 100,
        )
    )  # fmt: skip
    name = group.id.rsplit(".", 1)[-1] + (f"  {_times(group)}" if group.for_each is not None else "")
    axes.text(box.x + FRAME, box.y + HEADER / 2, _short(name), fontsize=_SMALL, color=PALE, va="center", weight="bold",
              parse_math=False, zorder=2)  # fmt: skip


def _draw_edge(axes: Any, source: Box, target: Box, bends: list[tuple[float, float]]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    start = (source.x + source.width, source.y + source.height / 2)
    end = (target.x - 1.5, target.y + target.height / 2)
    points = [start, *bends, end]
    vertices, codes = [start], [Path.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (x0 + x1) / 2
        vertices += [(middle, y0), (middle, y1), (x1, y1)]
        codes += [Path.CURVE4] * 3
    axes.add_patch(FancyArrowPatch(path=Path(vertices, codes), arrowstyle="-|>", mutation_scale=8, color="#818b98",
                                   linewidth=1.1, zorder=3, shrinkA=0, shrinkB=0))  # fmt: skip


def _draw_box(axes: Any, task: Task, box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    border, ground = COLOURS.get(task.uses or "", _OTHER) if task.is_step else _OTHER
    line = "--" if task.setup or task.teardown is not None else "-"
    for offset in (4.0, 0.0) if task.for_each is not None else (0.0,):  # a mapped task is a pile
        axes.add_patch(
            FancyBboxPatch(
                (box.x + offset, box.y + offset), box.width, box.height, boxstyle="round,pad=0,rounding_size=5",
                facecolor=ground, edgecolor=border, linewidth=1.2, linestyle=line, zorder=4,
            )
        )  # fmt: skip
    name, about = _lines(task)
    middle = box.x + box.width / 2
    axes.text(middle, box.y + box.height * 0.36, name, fontsize=_FONT, color=INK, weight="bold", ha="center",
              va="center", parse_math=False, zorder=5)  # fmt: skip
    axes.text(middle, box.y + box.height * 0.72, about, fontsize=_SMALL, color=border, ha="center", va="center",
              parse_math=False, zorder=5)  # fmt: skip
