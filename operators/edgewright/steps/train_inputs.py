"""The part ``train`` as files that a notebook or a script reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgewright.steps.data import Dataset

#: Always there, whatever else is asked for.
DEFAULT = "train.parquet"


def lay_out(dataset: Dataset, folder: Path, wanted: Mapping[str, str]) -> dict[str, Path]:
    """Write the part ``train`` in the formats that are asked for, batch by batch.

    Args:
        dataset: Its part ``train`` is all that training may see.
        folder: Where to write.
        wanted: File name (``.csv``, ``.jsonl``, ``.parquet``) by the name of a parameter.

    Returns:
        The path by the name of the parameter.
    """
    for name in sorted({DEFAULT, *wanted.values()}):
        _WRITERS[Path(name).suffix](dataset, folder / name)
    return {parameter: folder / name for parameter, name in wanted.items()}


def _parquet(dataset: Dataset, file: Path) -> None:
    import pyarrow.parquet as pq

    writer = None
    for batch in dataset.batches("train"):
        writer = writer or pq.ParquetWriter(file, batch.schema)
        writer.write_batch(batch)
    if writer is not None:
        writer.close()


def _csv(dataset: Dataset, file: Path) -> None:
    from pyarrow import csv

    writer = None
    for batch in dataset.batches("train"):
        options = csv.WriteOptions(quoting_style="needed")
        writer = writer or csv.CSVWriter(file, batch.schema, write_options=options)
        writer.write_batch(batch)
    if writer is not None:
        writer.close()


def _jsonl(dataset: Dataset, file: Path) -> None:
    import json

    with file.open("w", encoding="utf-8") as opened:
        for batch in dataset.batches("train"):
            for row in batch.to_pylist():
                opened.write(json.dumps(row, default=str) + "\n")


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
