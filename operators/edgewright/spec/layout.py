"""Places for the boxes of a graph, from left to right: layers by longest path, few crossings, straight edges.

The method of Sugiyama, Tagawa and Toda (1981): every box stands one layer after the last box that it needs; edges over
several layers get a place in each of them; each layer is ordered by the mean place of its neighbours, again and again;
heights are the least-squares fit to the neighbours' heights that keeps the order (pool adjacent violators). Groups are
laid out by themselves first, and are then boxes among the others. The same graph gives the same picture.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_SWEEPS = 12
#: Between two layers, between two boxes of a layer, around the boxes of a group, and above them for its name.
GAP_X, GAP_Y, FRAME, HEADER = 46.0, 20.0, 16.0, 22.0
#: What an edge takes where it passes a layer.
_LANE = 6.0
#: In place of a parent: no box, but an edge on its way past the boxes of a layer.
_IS_LANE = ">"


@dataclass
class Box:
    """A task or a group.

    Attributes:
        name: Its id.
        width: In points.
        height: In points.
        parent: Id of the group around it.
        x: Left border, once it is placed.
        y: Upper border, downwards.
    """

    name: str
    width: float = 0.0
    height: float = 0.0
    parent: str | None = None
    x: float = 0.0
    y: float = 0.0


@dataclass
class Layout:
    """A graph with places.

    Attributes:
        width: Of everything, in points.
        height: Of everything, in points.
        boxes: Tasks by id.
        groups: Groups by id, outer ones first.
        bends: Points that an edge passes between its ends, by (source, target).
    """

    width: float = 0.0
    height: float = 0.0
    boxes: dict[str, Box] = field(default_factory=dict)
    groups: dict[str, Box] = field(default_factory=dict)
    bends: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)


def lay_out(boxes: Sequence[Box], groups: Sequence[Box], edges: Iterable[tuple[str, str]]) -> Layout:
    """Return places for all boxes.

    Args:
        boxes: Tasks with their sizes; each after those that it needs.
        groups: Groups, outer ones first; their sizes follow from what is in them.
        edges: Pairs of task ids, from what is needed to what needs it.
    """
    layout = Layout(boxes={b.name: b for b in boxes}, groups={g.name: g for g in groups})
    edges = list(dict.fromkeys(edges))
    for group in [*reversed(groups), None]:
        name = group.name if group else None
        inner = [b for b in [*boxes, *groups] if b.parent == name]
        width, height = _place_level(inner, _lifted(edges, layout, name), layout)
        if group is None:
            layout.width, layout.height = width, height
            continue
        group.width, group.height = width + 2 * FRAME, height + FRAME + HEADER
        _shift(layout, name, FRAME, HEADER)
    for box in layout.groups.values():  # outer ones first: what is inside moves with them
        _shift(layout, box.name, box.x, box.y)
    return layout


def reduced(edges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the edges that are not implied by others (the transitive reduction); they must have no cycle.

    Args:
        edges: Pairs in which every target comes after its own sources, as the tasks of a pipeline do.
    """
    edges = list(dict.fromkeys(edges))
    sources: dict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        sources[target].append(source)
    before: dict[str, set[str]] = {}
    for target, direct in sources.items():
        before[target] = set(direct).union(*(before.get(source, ()) for source in direct))
    return [
        (source, target)
        for source, target in edges
        if not any(source in before.get(other, ()) for other in sources[target])
    ]


def _shift(layout: Layout, group: str | None, dx: float, dy: float) -> None:
    """Move what is directly in a group; the groups among it take theirs along later."""
    inner = {box.name for box in (*layout.boxes.values(), *layout.groups.values()) if box.parent == group}
    for box in (*layout.boxes.values(), *layout.groups.values()):
        if box.parent == group:
            box.x, box.y = box.x + dx, box.y + dy
    for (source, target), points in layout.bends.items():
        if _ancestor(layout, source, group) in inner and _ancestor(layout, target, group) in inner:
            layout.bends[source, target] = [(x + dx, y + dy) for x, y in points]


def _ancestor(layout: Layout, name: str, level: str | None) -> str | None:
    """Return the box directly in a group that holds a task; ``None`` if none does."""
    box = layout.boxes[name]
    while box.parent != level:
        if box.parent is None:
            return None
        box = layout.groups[box.parent]
    return box.name


def _lifted(
    edges: list[tuple[str, str]], layout: Layout, level: str | None
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return the edges between the boxes of one group, each with the edges between tasks that it stands for."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for source, target in edges:
        ends = _ancestor(layout, source, level), _ancestor(layout, target, level)
        if ends[0] is not None and ends[1] is not None and ends[0] != ends[1]:
            found[ends[0], ends[1]].append((source, target))
    return dict(found)


def _place_level(
    boxes: list[Box], edges: Mapping[tuple[str, str], list[tuple[str, str]]], layout: Layout
) -> tuple[float, float]:
    """Give the boxes of one group their places; return the width and height that they take."""
    if not boxes:
        return 0.0, 0.0
    layer = _layers([box.name for box in boxes], list(edges))
    lanes: dict[tuple[str, str], list[Box]] = {}
    neighbours: dict[str, list[str]] = defaultdict(list)
    rows: list[list[Box]] = [[] for _ in range(max(layer.values()) + 1)]
    for box in boxes:
        rows[layer[box.name]].append(box)
    for (source, target), stands_for in edges.items():
        lanes[source, target] = [Box(f"{source}>{target}@{at}", 0.0, _LANE * len(stands_for), _IS_LANE)
                                 for at in range(layer[source] + 1, layer[target])]  # fmt: skip
        for at, lane in enumerate(lanes[source, target], layer[source] + 1):
            rows[at].append(lane)
        chain = [source, *(lane.name for lane in lanes[source, target]), target]
        for one, other in itertools.pairwise(chain):
            neighbours[one].append(other)
            neighbours[other].append(one)
    _order(rows, neighbours)
    size = _widths(rows), _heights(rows, neighbours)
    for ends, stands_for in edges.items():
        for edge in stands_for:
            layout.bends[edge] = [
                (x, lane.y + lane.height / 2) for lane in lanes[ends] for x in (lane.x, lane.x + lane.width)
            ]
    return size


def _layers(names: list[str], edges: list[tuple[str, str]]) -> dict[str, int]:
    """Return the layer of each box: after all that it needs, and not earlier than what needs it allows."""
    after: dict[str, list[str]] = defaultdict(list)
    before: dict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        after[source].append(target)
        before[target].append(source)
    layer: dict[str, int] = {}

    def depth(name: str) -> int:
        stack = [name]
        while stack:
            missing = [up for up in before[stack[-1]] if up not in layer]
            if missing:
                stack.extend(missing)
            else:
                layer[stack[-1]] = max((layer[up] + 1 for up in before[stack[-1]]), default=0)
                stack.pop()
        return layer[name]

    for name in names:
        depth(name)
    for name in names:
        if not before[name] and after[name]:
            layer[name] = min(layer[down] for down in after[name]) - 1
    return layer


def _order(rows: list[list[Box]], neighbours: Mapping[str, list[str]]) -> None:
    """Order each layer by the mean place of its neighbours in the layer before, then after, and again."""
    place = {box.name: float(index) for row in rows for index, box in enumerate(row)}
    layer = {box.name: at for at, row in enumerate(rows) for box in row}
    for sweep in range(_SWEEPS):
        step = 1 if sweep % 2 == 0 else -1
        for at, row in list(enumerate(rows))[::step]:
            mean = {}
            for box in row:
                near = [place[name] for name in neighbours[box.name] if layer[name] == at - step]
                mean[box.name] = sum(near) / len(near) if near else place[box.name]
            row.sort(key=lambda box, mean=mean: mean[box.name])  # type: ignore[misc]
            place.update({box.name: float(index) for index, box in enumerate(row)})


def _widths(rows: list[list[Box]]) -> float:
    x = 0.0
    for row in rows:
        width = max((box.width for box in row), default=0.0)
        for box in row:
            if box.parent == _IS_LANE:
                box.width = width
            box.x = x + (width - box.width) / 2
        x += width + GAP_X
    return x - GAP_X


def _heights(rows: list[list[Box]], neighbours: Mapping[str, list[str]]) -> float:
    boxes = {box.name: box for row in rows for box in row}
    for row in rows:
        y = 0.0
        for box in row:
            box.y = y
            y += box.height + GAP_Y
    for sweep in range(2 * _SWEEPS):
        for row in rows[:: 1 if sweep % 2 == 0 else -1]:
            wanted = []
            for box in row:
                near = [boxes[name] for name in neighbours[box.name]] or [box]
                wanted.append(sum(other.y + other.height / 2 for other in near) / len(near) - box.height / 2)
            for box, y in zip(row, _kept_apart(row, wanted), strict=True):
                box.y = y
    top = min(box.y for box in boxes.values())
    for box in boxes.values():
        box.y -= top
    return max(box.y + box.height for box in boxes.values())


def _kept_apart(row: list[Box], wanted: list[float]) -> list[float]:
    """Return the upper borders nearest to what is wanted (least squares) that keep order and distance."""
    offsets = [0.0]
    for box in row[:-1]:
        offsets.append(offsets[-1] + box.height + GAP_Y)
    blocks: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        mean, size = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, number = blocks.pop()
            mean, size = (before * number + mean * size) / (number + size), number + size
        blocks.append((mean, size))
    means = [mean for mean, size in blocks for _ in range(size)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
