"""Rows on their way to a model: blocks of typed columns, and the rows that cannot become such, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from edgewright.steps.data import arrow_type
from edgewright.steps.models import NUMERIC, Feature

#: Rows of a Parquet batch; the blocks of text files have as many as fit into their bytes.
BATCH_ROWS = 65_536
_MOST_TEXT = 2_000
_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?(?i:inf|infinity|nan)$"
_TRUTH = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0}


@dataclass(frozen=True)
class Bad:
    """A row that cannot be scored.

    Attributes:
        row: Its number in the file.
        reasons: What is wrong with it.
        text: The record, or its values, shortened.
    """

    row: int
    reasons: list[str]
    text: str = ""

    def document(self, file: str) -> dict[str, Any]:
        """Return it as it is kept."""
        return {"file": file, "row": self.row, "reasons": self.reasons, "text": self.text[:_MOST_TEXT]}


@dataclass
class Block:
    """Some rows of a file.

    Attributes:
        table: Features and kept columns.
        rows: Number in the file of each row of the table.
        bad: Rows that are not in the table.
        size: Bytes of the input that this stands for.
    """

    table: pa.Table
    rows: np.ndarray[Any, Any]
    bad: list[Bad] = field(default_factory=list)
    size: int = 0

    def without(self, reasons: dict[int, list[str]]) -> Block:
        """Return the block without the rows at some positions, which are bad for reasons."""
        if not reasons:
            return self
        mask = np.ones(len(self.rows), dtype=bool)
        mask[list(reasons)] = False
        places = sorted(reasons)
        texts = self.table.take(places).to_pylist()
        bad = [
            Bad(int(self.rows[place]), reasons[place], str(values)) for place, values in zip(places, texts, strict=True)
        ]
        return Block(self.table.filter(pa.array(mask)), self.rows[mask], [*self.bad, *bad], self.size)


@dataclass(frozen=True)
class Wanted:
    """What is read of each row.

    Attributes:
        features: Columns of the model.
        keep: Types of the columns that are kept beside the predictions; ``None`` for one whose file knows it.
        number: Arrow type of numeric features: float32 for ONNX, float64 for native models.
    """

    features: Sequence[Feature]
    keep: dict[str, str | None]
    number: pa.DataType

    @property
    def names(self) -> list[str]:
        """All columns, each once: features first."""
        return list(dict.fromkeys([*(feature.name for feature in self.features), *self.keep]))

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The Arrow type of each column; a kept column that is a feature too has the feature's."""
        found = {name: arrow_type(kind or "string") for name, kind in self.keep.items()}
        return {**found, **{feature.name: self.feature_type(feature) for feature in self.features}}

    def feature_type(self, feature: Feature) -> pa.DataType:
        """Return the Arrow type that a feature is read as; times stay texts, as models take them."""
        return self.number if feature.type in NUMERIC else pa.string()


def typed(texts: pa.Table, rows: np.ndarray[Any, Any], wanted: Wanted, missing: Sequence[str]) -> Block:
    """Return a block of a table of texts; rows with a value that does not fit go aside, every fault named.

    This is the careful way, for blocks in which something does not fit.
    """
    reasons: dict[int, list[str]] = {}
    booleans = {feature.name for feature in wanted.features if feature.type == "boolean"}
    columns = []
    for name, kind in wanted.types.items():
        column = texts.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())
        column = pc.if_else(pc.is_in(column, pa.array(list(missing), pa.string())), None, column)
        columns.append(_converted(name, column, kind, reasons, boolean=name in booleans))
    table = pa.table(columns, names=list(wanted.types))
    return Block(table, rows).without(reasons)


def _converted(
    name: str, column: pa.Array, kind: pa.DataType, reasons: dict[int, list[str]], *, boolean: bool
) -> pa.Array:
    if pa.types.is_string(kind):
        return column
    column = pc.utf8_trim_whitespace(column)
    if boolean:
        fits = pc.is_in(pc.utf8_lower(column), pa.array(list(_TRUTH)))
    elif pa.types.is_floating(kind):
        fits = pc.match_substring_regex(column, _NUMBER)
    else:
        fits = pa.array([_casts(text, kind) for text in column.to_pylist()])
    wrong = pc.and_(pc.is_valid(column), pc.invert(pc.fill_null(fits, True)))
    word = "no truth value" if boolean else f"no {'number' if pa.types.is_floating(kind) else kind}"
    for place in np.flatnonzero(wrong.to_numpy(zero_copy_only=False)).tolist():
        reasons.setdefault(place, []).append(f"{name}: {column[place].as_py()!r:.60} is {word}")
    column = pc.if_else(wrong, None, column)
    if boolean:
        return pa.array([None if v is None else _TRUTH[v.lower()] for v in column.to_pylist()], kind)
    return pc.cast(column, kind)


def _casts(text: str | None, kind: pa.DataType) -> bool:
    try:
        pc.cast(pa.array([text], pa.string()), kind)
    except pa.ArrowException:
        return False
    return True


def unusable(block: Block, features: Sequence[Feature]) -> dict[int, list[str]]:
    """Return why rows of a block cannot be asked about: missing where none was in training, or not finite."""
    reasons: dict[int, list[str]] = {}
    for feature in features:
        column = block.table.column(feature.name)
        if column.null_count and not feature.missing:
            gaps = pc.is_null(column).to_numpy()
            for place in np.flatnonzero(gaps).tolist():
                reasons.setdefault(place, []).append(f"{feature.name} is missing, which it never was in training")
        if feature.type not in NUMERIC:
            continue
        values = column.to_numpy()
        if np.isfinite(values.sum(dtype=np.float64)):
            continue
        for place in np.flatnonzero(np.isinf(values)).tolist():
            reasons.setdefault(place, []).append(f"{feature.name} is infinite or too large")
        gaps = np.isnan(values) & ~pc.is_null(column).to_numpy()
        for place in np.flatnonzero(gaps).tolist() if not feature.missing else []:
            reasons.setdefault(place, []).append(f"{feature.name} is not a number (NaN)")
    return reasons
