"""Datasets on disk: what is read back, the same bytes for the same rows, and parts that are not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from edgewright.artifacts.digest import describe_tree, digest_tree
from edgewright.errors import DamagedArtifact, DataError
from edgewright.steps.data import GROUP_ROWS, Dataset, DatasetWriter

COLUMNS = [("n", "integer"), ("x", "number"), ("t", "string"), ("y", "integer")]


def rows(count: int, start: int = 0) -> pa.RecordBatch:
    index = np.arange(start, start + count)
    text = pa.array([None if n % 10 == 0 else f"t{n % 7}" for n in index])
    return pa.record_batch(
        [pa.array(index), pa.array(index / 4), text, pa.array(index % 3)], names=["n", "x", "t", "y"]
    )


def write(folder: Path, parts: dict[str, list[pa.RecordBatch]], label: str | None = "y", **kinds: Any) -> Dataset:
    folder.mkdir()
    writer = DatasetWriter(folder, kinds.get("columns", COLUMNS), label, {"uri": "x.csv"})
    for part, batches in parts.items():
        for batch in batches:
            writer.write(part, batch)
    writer.close()
    return Dataset.open(folder)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d", {"train": [rows(30)], "test": [rows(10, 30)], "holdout": [rows(5, 40)]})
    assert dataset.part_names == ["train", "test", "holdout"]
    assert dataset.features == ["n", "x", "t"]
    assert dataset.feature_types == {"n": "integer", "x": "number", "t": "string"}
    assert dataset.problem == "classification"
    assert dataset.evaluation_part() == "holdout"
    assert dataset.X("test").n.tolist() == list(range(30, 40))
    assert dataset.y("test").tolist() == [n % 3 for n in range(30, 40)]
    assert sum(batch.num_rows for batch in dataset.batches("train")) == dataset.rows("train") == 30
    assert dataset.manifest["missing"] == {"t": 5}
    assert dataset.columns[0] == {"name": "n", "type": "integer", "missing": 0, "minimum": 0, "maximum": 29}
    assert dataset.manifest["parts"]["train"]["classes"] == {"0": 10, "1": 10, "2": 10}


def test_the_same_rows_are_the_same_bytes_however_they_come(tmp_path: Path) -> None:
    whole = rows(150_000)
    digests = set()
    for size in (1_000, 65_536, 99_999, 150_000):
        pieces = [whole.slice(start, size) for start in range(0, 150_000, size)]
        write(tmp_path / str(size), {"train": pieces})
        digests.add(digest_tree(describe_tree(tmp_path / str(size))))
    assert len(digests) == 1


def test_memory_is_that_of_a_row_group(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d", {"train": [rows(150_000)]})
    assert [batch.num_rows for batch in dataset.batches("train")] == [GROUP_ROWS, GROUP_ROWS, 150_000 - 2 * GROUP_ROWS]


def test_a_columns_dtype_follows_from_the_dataset_not_from_the_rows(tmp_path: Path) -> None:
    gap = pa.record_batch([pa.array([1, None], pa.int64())], names=["n"])
    full = pa.record_batch([pa.array([3, 4], pa.int64())], names=["n"])
    dataset = write(tmp_path / "d", {"train": [full], "test": [gap]}, None, columns=[("n", "integer")])
    assert dataset.frame("train").n.dtype == dataset.frame("test").n.dtype == np.float64
    assert dataset.feature_types == {"n": "integer"}


@pytest.mark.parametrize(
    ("values", "kind", "problem"),
    [
        ([0, 1], "integer", "classification"),
        (list(range(50)), "integer", "classification"),
        (list(range(51)), "integer", "regression"),
        (list(range(5_000)), "integer", "regression"),
        ([0.5, 1.5], "number", "regression"),
        (["a", "b"], "string", "classification"),
        ([True, False], "boolean", "classification"),
    ],
)
def test_the_problem_follows_from_the_label(tmp_path: Path, values: list[Any], kind: str, problem: str) -> None:
    batch = pa.record_batch([pa.array(values)], names=["y"])
    dataset = write(tmp_path / "d", {"train": [batch], "test": [batch]}, columns=[("y", kind)])
    assert dataset.problem == problem
    assert ("classes" in dataset.manifest) is (problem == "classification")


def test_a_label_with_a_text_for_every_row_is_refused(tmp_path: Path) -> None:
    batch = pa.record_batch([pa.array([f"t{n}" for n in range(1_001)])], names=["y"])
    with pytest.raises(DataError, match="more than 1,000 different texts"):
        write(tmp_path / "d", {"train": [batch]}, columns=[("y", "string")])


def test_parts_that_are_not_there_are_explained(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d", {"train": [rows(5)]}, None)
    with pytest.raises(DataError, match=r"no part test\n  hint: it has: train"):
        dataset.frame("test")
    with pytest.raises(DataError, match="give ingest a split: "):
        dataset.evaluation_part()
    with pytest.raises(DataError, match="the dataset has no label"):
        dataset.y("train")


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DamagedArtifact, match="this is no dataset"):
        Dataset.open(tmp_path)


def test_the_manifest_is_strict_json(tmp_path: Path) -> None:
    odd = pa.record_batch([pa.array([float("inf"), 1.0, float("-inf")])], names=["x"])
    write(tmp_path / "d", {"train": [odd]}, None, columns=[("x", "number")])
    text = (tmp_path / "d" / "dataset.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
