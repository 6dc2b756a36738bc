"""Dividing rows: shares, classes, equal rows, and independence of order and batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import DataError
from edgewright.spec.steps.ingest import Split
from edgewright.steps.hashes import HashSet, row_hashes
from edgewright.steps.split import Splitter


def divide(table: pa.Table, split: Split, label: str | None = None, batch: int = 1000) -> Any:
    """Return which rows of a table go to the part test."""
    splitter = Splitter(split, label)
    batches = table.to_batches(max_chunksize=batch)
    for rows in batches:
        splitter.count(rows, row_hashes(rows, split.seed))
    splitter.decide()
    return np.concatenate([splitter.is_test(rows, row_hashes(rows, split.seed)) for rows in batches])


def numbers(rows: int, classes: int = 2, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table({"a": random.normal(size=rows), "b": random.integers(0, 99, rows), "y": np.arange(rows) % classes})


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_the_share_is_met(share: float) -> None:
    found = divide(numbers(20_000), Split(test=share))
    assert found.mean() == pytest.approx(share, abs=0.001)


def test_each_class_keeps_its_share() -> None:
    random = np.random.default_rng(3)
    table = pa.table({"a": random.normal(size=10_000), "y": (random.random(10_000) < 0.02).astype(int)})
    y = table["y"].to_numpy()
    found = divide(table, Split(test=0.25, stratify=True), "y")
    assert y[found].sum() == pytest.approx(y.sum() * 0.25, abs=1)


@pytest.mark.parametrize("batch", [1, 7, 999, 100_000])
def test_batches_make_no_difference(batch: int) -> None:
    table = numbers(2_000, 3)
    split = Split(test=0.3, seed=5, stratify=True)
    assert (divide(table, split, "y", batch) == divide(table, split, "y", 500)).all()


def test_the_order_makes_no_difference() -> None:
    table = numbers(2_000)
    order = np.random.default_rng(1).permutation(2_000)
    split = Split(test=0.3, seed=-4, stratify=True)
    assert (divide(table.take(pa.array(order)), split, "y") == divide(table, split, "y")[order]).all()


def test_seeds_give_different_splits() -> None:
    table = numbers(2_000)
    one, two = divide(table, Split(test=0.5, seed=1)), divide(table, Split(test=0.5, seed=2))
    assert 0.4 < (one == two).mean() < 0.6


def test_too_many_classes_are_no_classes() -> None:
    with pytest.raises(DataError, match="more than 200 values"):
        divide(numbers(1_000, 500), Split(stratify=True), "y")


cell = st.one_of(st.none(), st.sampled_from(["", "a", "b"]))
number = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, float("inf")]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cell, number, st.integers(0, 2)), min_size=1, max_size=60), st.integers(-9, 9))
def test_equal_rows_never_part(rows: list[tuple[Any, Any, int]], seed: int) -> None:
    table = pa.table(
        {"t": pa.array([r[0] for r in rows], pa.string()), "n": pa.array([r[1] for r in rows], pa.float64()),
         "y": pa.array([r[2] for r in rows], pa.int64())}
    )  # fmt: skip
    found = divide(table, Split(test=0.5, seed=seed, stratify=True), "y", batch=7)
    parts: dict[Any, set[bool]] = {}
    for row, test in zip(rows, found.tolist(), strict=True):
        parts.setdefault(row, set()).add(test)
    assert all(len(places) == 1 for places in parts.values())


def test_different_rows_have_different_hashes() -> None:
    columns = [
        pa.array([None, "", "None", "a", "b"]),
        pa.array([None, 0, 1, -1, 2**53 + 1], pa.int64()),
        pa.array([None, 0.0, 1.0, -1.0, 1e-300]),
        pa.array([None, True, False, True, False]),
    ]
    for column in columns:
        hashes = row_hashes(pa.record_batch([column], names=["c"]))
        assert len(set(hashes.tolist())) == len(set(column.to_pylist()))
    pair = pa.record_batch([pa.array(["a", "b"]), pa.array(["b", "a"])], names=["x", "y"])
    assert len(set(row_hashes(pair).tolist())) == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=20), max_size=20), st.integers(0, 2**64 - 1))
def test_a_set_of_hashes_knows_what_was_added(groups: list[list[int]], other: int) -> None:
    known = HashSet(np.array(group, dtype=np.uint64) for group in groups)
    everything = {value for group in groups for value in group}
    asked = [*everything, other]
    assert known.contains(np.array(asked, dtype=np.uint64)).tolist() == [value in everything for value in asked]
