"""The trials of ``search:``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright.spec.faults import Faults
from edgewright.spec.load import load_pipelines
from edgewright.spec.search import read_search

CORPUS = Path(__file__).parents[1] / "corpus" / "good"


def trials(space: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    faults = Faults("pipeline.yaml")
    found = read_search({"method": "random", "space": space, **more}, ("search",), faults)
    assert found is not None
    assert found.items is not None
    return list(found.items)


def test_the_same_seed_draws_the_same_trials():
    space = {"alpha": {"from": 0.0001, "to": 1.0, "log": True}, "hidden": {"from": 1, "to": 64}, "kind": ["a", "b"]}
    found = trials(space, trials=50, seed=3)
    assert found == trials(space, trials=50, seed=3) != trials(space, trials=50, seed=4)
    assert len(found) == 50
    assert all(0.0001 <= trial["alpha"] <= 1 and isinstance(trial["hidden"], int) for trial in found)
    small = sum(trial["alpha"] < 0.01 for trial in found)
    assert 10 < small < 40  # half of the orders of magnitude


def test_a_small_space_gives_each_trial_once():
    found = trials({"a": [1, 2], "b": {"from": 0, "to": 16, "step": 8}}, trials=100)
    assert sorted((trial["a"], trial["b"]) for trial in found) == [(a, b) for a in (1, 2) for b in (0, 8, 16)]


def test_ranges_stay_within_their_ends():
    for low, high, more in ((1, 3, {"log": True}), (1, 3, {}), (0.5, 0.6, {}), (0.1, 0.4, {"step": 0.1})):
        values = {trial["x"] for trial in trials({"x": {"from": low, "to": high, **more}}, trials=200)}
        assert low <= min(values) <= max(values) <= high
        assert len(values) > 2


def test_a_search_is_a_for_each_to_everything_else():
    pipeline = load_pipelines(CORPUS / "search.yaml", thorough=True)[0]
    group = next(group for group in pipeline.groups if group.id == "drawn")
    assert group.for_each is not None
    assert len(group.for_each.items or ()) == 20
    grid = next(task for task in pipeline.tasks if task.id == "grid")
    assert grid.for_each is not None
    assert grid.for_each.items == ({"alpha": 0.01, "hidden": 16}, {"alpha": 0.1, "hidden": 16})
