"""Places for the boxes of a graph."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.spec.layout import Box, lay_out, reduced

Graph = tuple[list[Box], list[Box], list[tuple[str, str]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 14))
    groups = [Box("g0"), Box("g0.g1", parent="g0"), Box("g2")]
    parents = draw(st.lists(st.sampled_from([None, None, "g0", "g0.g1", "g2"]), min_size=count, max_size=count))
    # as in a pipeline: the boxes of a group stand together, so that groups have no cycle
    parents.sort(key=str)
    boxes = [Box(f"t{n}", draw(st.floats(20, 200)), 38, parent) for n, parent in enumerate(parents)]
    pairs = [(a.name, b.name) for a, b in itertools.combinations(boxes, 2)]
    return boxes, groups, draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_boxes_never_overlap_and_stay_in_their_groups(
    graph: Graph,
) -> None:
    boxes, groups, edges = graph
    layout = lay_out(boxes, groups, edges)
    for one, other in itertools.combinations(boxes, 2):
        apart_x = one.x + one.width <= other.x + 0.01 or other.x + other.width <= one.x + 0.01
        apart_y = one.y + one.height <= other.y + 0.01 or other.y + other.height <= one.y + 0.01
        assert apart_x or apart_y, (one, other)
    for box in [*boxes, *(group for group in groups if group.parent)]:
        around = layout.groups.get(box.parent or "")
        left, top, right, bottom = (0.0, 0.0, layout.width, layout.height) if around is None else (
            around.x, around.y, around.x + around.width, around.y + around.height
        )  # fmt: skip
        assert left - 0.01 <= box.x
        assert box.x + box.width <= right + 0.01
        assert top - 0.01 <= box.y
        assert box.y + box.height <= bottom + 0.01


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_what_needs_something_stands_after_it(graph: Graph) -> None:
    boxes, groups, edges = graph
    layout = lay_out(boxes, groups, edges)
    for source, target in edges:
        one, other = layout.boxes[source], layout.boxes[target]
        if one.parent == other.parent:
            assert one.x + one.width < other.x


def test_a_chain_is_a_straight_line() -> None:
    boxes = [Box(name, 80, 38) for name in "abc"]
    lay_out(boxes, [], [("a", "b"), ("b", "c"), ("a", "c")][:2])
    assert len({box.y for box in boxes}) == 1


def test_edges_that_others_imply_are_left_out() -> None:
    edges = [("a", "b"), ("a", "c"), ("b", "c"), ("a", "d"), ("c", "d"), ("x", "d")]
    assert reduced(edges) == [("a", "b"), ("b", "c"), ("c", "d"), ("x", "d")]
