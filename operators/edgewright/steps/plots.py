"""Charts of reports, as PNG bytes. Equal numbers give equal bytes: no time, no version of the library in the file.

Backgrounds are transparent and colours are chosen to be readable on white and on dark pages.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewright.steps.metrics import Array, Truth

INK = "#7d8590"
BLUE = "#3b82f6"
ORANGE = "#f08c3a"
_SIZE = (4.6, 3.7)


def _figure(title: str, x: str, y: str) -> tuple[Any, Any]:
    # Figure without pyplot: no global state, no display, nothing to close
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=144, layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_title(title, color=INK, fontsize=11, loc="left", fontweight="bold")
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))
    axes.grid(color=INK, alpha=0.18, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _legend(axes: Any) -> None:
    legend = axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    legend.set_zorder(5)


def confusion_matrix(counts: Sequence[Sequence[int]], classes: Sequence[Any]) -> bytes:
    """Draw counts ``[true][predicted]``, shaded by the share of the true class."""
    from matplotlib.colors import LinearSegmentedColormap

    figure, axes = _figure("Confusion matrix", "predicted", "true")
    values = np.asarray(counts, dtype=np.float64)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    colours = LinearSegmentedColormap.from_list("blues", ["#3b82f612", "#3b82f6ee"])
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
    axes.grid(visible=False)
    names = [str(value)[:14] for value in classes]
    axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= 12:
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                colour = "white" if shares[row, column] > 0.55 else INK
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontweight="bold")
    return _png(figure)


def roc(truth: Truth) -> bytes:
    """Draw the ROC curve of the positive class, or one curve a class where there are more than two."""
    from sklearn.metrics import roc_curve

    figure, axes = _figure("ROC", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", label="chance")
    shown = [truth.positive] if len(truth.classes) == 2 else range(min(len(truth.classes), 10))
    for label in shown:
        positives = truth.y == label
        if positives.all() or not positives.any():
            continue
        false_rate, true_rate, _ = roc_curve(positives, truth.scores[:, label])
        colour = BLUE if len(truth.classes) == 2 else None
        axes.plot(false_rate, true_rate, color=colour, linewidth=2, label=f"{truth.classes[label]}")
    _legend(axes)
    return _png(figure)


def calibration(truth: Truth, bins: int = 10) -> bytes:
    """Draw how often the positive class occurred against the probability that was said (equal-width bins).

    For more than two classes it is the predicted class's probability against how often the prediction was right.
    """
    binary = len(truth.classes) == 2
    said = truth.scores[:, truth.positive] if binary else truth.scores.max(axis=1)
    came = (truth.y == truth.positive) if binary else (truth.y == truth.predicted)
    x, y, rows = reliability(said, came, bins)
    figure, axes = _figure("Calibration", "probability said", "share that came true")
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", label="perfect")
    axes.plot(x, y, color=ORANGE, linewidth=1.5, label="model")
    axes.scatter(x, y, s=12 + 120 * rows / max(rows.sum(), 1), color=ORANGE, zorder=3)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    _legend(axes)
    return _png(figure)


def reliability(said: Array, came: Array, bins: int) -> tuple[Array, Array, Array]:
    """Return mean probability, share that came true, and rows of each bin that has rows."""
    place = np.minimum((said * bins).astype(int), bins - 1)
    rows = np.bincount(place, minlength=bins)
    used = rows > 0
    means = np.bincount(place, weights=said, minlength=bins)[used] / rows[used]
    shares = np.bincount(place, weights=came.astype(float), minlength=bins)[used] / rows[used]
    return means, shares, rows[used]


def predicted_and_true(truth: Truth) -> bytes:
    """Draw predictions against true values."""
    figure, axes = _figure("Predicted and true", "true", "predicted")
    low = float(min(truth.y.min(), truth.scores.min()))
    high = float(max(truth.y.max(), truth.scores.max()))
    axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=":")
    axes.scatter(truth.y, truth.scores[:, 0], s=12, color=BLUE, alpha=0.6, linewidths=0)
    return _png(figure)


def residuals(truth: Truth) -> bytes:
    """Draw predicted minus true against the prediction."""
    figure, axes = _figure("Residuals", "predicted", "predicted minus true")
    axes.axhline(0, color=INK, linewidth=1, linestyle=":")
    axes.scatter(truth.scores[:, 0], truth.scores[:, 0] - truth.y, s=12, color=ORANGE, alpha=0.6, linewidths=0)
    return _png(figure)


def agreement(title: str, x: str, y: str, before: Array, after: Array) -> bytes:
    """Draw what two forms of a model say about the same rows against each other; equal ones lie on the line."""
    figure, axes = _figure(title, x, y)
    low = float(min(before.min(), after.min()))
    high = float(max(before.max(), after.max()))
    axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=":")
    axes.scatter(before.ravel(), after.ravel(), s=8, color=BLUE, alpha=0.4, linewidths=0)
    return _png(figure)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def bars(title: str, unit: str, values: dict[str, float]) -> bytes:
    """Draw one horizontal bar a variant; the first, which the others are held against, stands out."""
    figure, axes = _figure(title, unit, "")
    figure.set_size_inches(_SIZE[0], 0.9 + 0.45 * len(values))
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[name] for name in names], color=[BLUE] * (len(names) - 1) + [ORANGE], height=0.55)
    axes.bar_label(drawn, labels=[_short(values[name]) for name in names], padding=4, color=INK, fontsize=8)
    axes.margins(x=0.18)
    axes.grid(visible=False, axis="y")
    return _png(figure)


def named_points(title: str, x: str, y: str, points: Mapping[str, tuple[float, float]]) -> bytes:
    """Draw one named point a variant; the first, which the others are held against, stands out."""
    figure, axes = _figure(title, x, y)
    for place, (name, (across, up)) in enumerate(points.items()):
        axes.scatter([across], [up], color=BLUE if place else ORANGE, s=36, zorder=3)
        # neighbours above and below each other: equal variants often share a height
        offset = (0, 7 if place % 2 else -13)
        axes.annotate(name, (across, up), offset, textcoords="offset points", ha="center", color=INK, fontsize=8)
    axes.margins(x=0.22, y=0.25)
    axes.ticklabel_format(useOffset=False)
    return _png(figure)


def histogram(column: dict[str, Any]) -> bytes:
    """Draw a column of a profile: its histogram, or its frequent values."""
    figure, axes = _figure(str(column["name"]), "", "rows")
    if "histogram" in column:
        edges, counts = column["histogram"]["edges"], column["histogram"]["counts"]
        axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=BLUE, linewidth=0)
    else:
        values = [str(entry["value"])[:18] for entry in column["frequent"]]
        axes.barh(range(len(values)), [entry["count"] for entry in column["frequent"]], color=BLUE)
        axes.set_yticks(range(len(values)), values)
        axes.invert_yaxis()
        axes.set_xlabel("rows", color=INK)
        axes.set_ylabel("")
    return _png(figure)


def heat_map(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> bytes:
    """Draw correlations, blue where they are negative and orange where they are positive."""
    from matplotlib.colors import LinearSegmentedColormap

    figure, axes = _figure("Correlations", "", "")
    axes.grid(visible=False)
    colours = LinearSegmentedColormap.from_list("signed", [BLUE, "#00000000", ORANGE])
    matrix = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=np.float64)
    axes.imshow(matrix, cmap=colours, vmin=-1, vmax=1)
    size = 8 if len(names) <= 15 else 5
    axes.set_xticks(range(len(names)), [name[:14] for name in names], rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), [name[:14] for name in names], fontsize=size)
    return _png(figure)


def comparison(metric: str, scores: Sequence[float], params: dict[str, list[str | None]]) -> bytes:
    """Draw what runs scored against each parameter in which they differ; the first run, the best, stands out."""
    from matplotlib.figure import Figure

    names = list(params) or [""]
    figure = Figure(figsize=(_SIZE[0] * len(names), _SIZE[1]), dpi=144, layout="constrained", facecolor="none")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), place)
        values, ticks = _places(params.get(name, [None] * len(scores)))
        axes.scatter(values[1:], scores[1:], color=BLUE)
        axes.scatter(values[:1], scores[:1], color=ORANGE, zorder=3)
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks)
        elif min(values) > 0 and max(values) >= 100 * min(values):
            axes.set_xscale("log")
        axes.set_xlabel(name, color=INK)
        axes.set_ylabel(metric, color=INK)
        axes.tick_params(colors=INK, labelsize=8)
        axes.set_facecolor("none")
        axes.grid(color=INK, alpha=0.18, linewidth=0.7)
    return _png(figure)


def _places(values: Sequence[str | None]) -> tuple[list[float], list[str]]:
    """Return numbers as they are; of texts their places, and what stands there."""
    try:
        return [float(str(value)) for value in values], []
    except ValueError:
        ticks = sorted({str(value) for value in values})
        return [float(ticks.index(str(value))) for value in values], ticks
