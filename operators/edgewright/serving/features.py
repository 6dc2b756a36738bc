"""From the cells of a request to the arrays that a model takes; every fault names its row and column."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgewright.serving.faults import MAX_DETAILS, RequestFault, all_of
from edgewright.serving.release import Feature

Arrays = dict[str, npt.NDArray[Any]]
_PLAIN_NUMBERS = frozenset({int, float})
_EXPECTED = {"integer": "a number", "number": "a number", "boolean": "true, false, 0 or 1"}


class FeatureTable:
    """The columns that a model takes, prepared for checking requests quickly.

    Args:
        features: The columns in the model's order.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self.names = [feature.name for feature in features]
        self._set = frozenset(self.names)
        self.numeric = all(feature.numeric for feature in features)
        self._numbers = [i for i, feature in enumerate(features) if feature.numeric]
        chosen = [features[i] for i in self._numbers]
        self._low = np.array([-np.inf if f.minimum is None else f.minimum for f in chosen], dtype=np.float32)
        self._high = np.array([np.inf if f.maximum is None else f.maximum for f in chosen], dtype=np.float32)
        self._booleans = [column for column, feature in enumerate(chosen) if feature.type == "boolean"]
        self._may_miss = np.array([f.missing for f in chosen], dtype=bool)

    # -- columns -----------------------------------------------------------------------------------------------

    def order(self, columns: Sequence[Any]) -> list[int] | None:
        """Return where each feature stands among the given columns; ``None`` where they stand in order already.

        Raises:
            RequestFault: columns are missing, unknown or there twice; all of them are named.
        """
        if list(columns) == self.names:
            return None
        faults = self.column_faults(columns)
        if faults:
            raise all_of(faults, "wrong-columns", hint=f"the model takes: {', '.join(self.names)}")
        place = {name: i for i, name in enumerate(columns)}
        return [place[name] for name in self.names]

    def column_faults(self, columns: Sequence[Any]) -> list[dict[str, Any]]:
        """Return one fault for every column that is missing, unknown or there twice."""
        given = [str(column) for column in columns]
        absent = [name for name in self.names if name not in given]
        extra = [name for name in dict.fromkeys(given) if name not in self._set]
        faults = []
        for name in absent:
            near = _near(name, extra)
            suggestion = f'; is "{near[0]}" meant?' if near else ""
            fault = {"column": name, "message": f"missing column: {name}{suggestion}"}
            faults.append({**fault, "suggestion": near[0]} if near else fault)
        for name in extra:
            near = _near(name, self.names)
            suggestion = f'; did you mean "{near[0]}"?' if near else ""
            faults.append({"column": name, "message": f"unexpected column: {name}{suggestion}"})
        twice = sorted({name for name in given if given.count(name) > 1})
        return faults + [{"column": name, "message": f"column {name} is there more than once"} for name in twice]

    # -- values ------------------------------------------------------------------------------------------------

    def rows_of(self, records: Sequence[Any]) -> list[list[Any]]:
        """Return records (one mapping a row) as rows in the model's order.

        Raises:
            RequestFault: a record is no mapping, or its columns do not fit.
        """
        names, size, rows = self.names, len(self.names), []
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise RequestFault(
                    f"row {number}: expected an object with a value for each column, got {shown(record)}",
                    code="invalid-shape",
                )
            if len(record) != size or not self._set.issuperset(record):
                faults = [
                    {"row": number, **fault, "message": f"row {number}: {fault['message']}"}
                    for fault in self.column_faults(list(record))
                ]
                raise all_of(faults, "wrong-columns", hint=f"the model takes: {', '.join(names)}")
            rows.append([record[name] for name in names])
        return rows

    def arrays(self, rows: Sequence[Any]) -> tuple[Arrays, npt.NDArray[np.float32]]:
        """Return the model's input arrays, and all numbers as float32 ``[rows, numeric features]``.

        Args:
            rows: One list of cells a row, in the model's order.

        Raises:
            RequestFault: with every cell that does not fit.
        """
        self._check_widths(rows)
        try:
            numbers = self._as_numbers(rows)
        except (ValueError, TypeError, OverflowError):
            raise self._value_faults(rows) from None
        unusable = ~np.isfinite(numbers)
        if unusable.any() and (np.isinf(numbers).any() or (unusable & ~self._may_miss).any()):
            raise self._value_faults(rows)
        flags = numbers[:, self._booleans]
        if self._booleans and not ((flags == 0) | (flags == 1) | np.isnan(flags)).all():
            raise self._value_faults(rows)
        if self.numeric:
            return {"X": numbers}, numbers
        return self._columns(rows, numbers), numbers

    def _check_widths(self, rows: Sequence[Any]) -> None:
        size = len(self.names)
        for number, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != size:
                got = f"{len(row)}" if isinstance(row, list) else shown(row)
                raise RequestFault(
                    f"row {number}: expected {size} values, got {got}",
                    code="invalid-shape",
                    details=[{"row": number, "expected": size, "got": len(row) if isinstance(row, list) else None}],
                    hint=f"in this order: {', '.join(self.names)}",
                )

    def _as_numbers(self, rows: Sequence[list[Any]]) -> npt.NDArray[np.float32]:
        # numpy would read "45" and true as numbers, so the types are looked at first
        if not self.numeric:
            rows = [[row[i] for i in self._numbers] for row in rows]
        for row in rows:
            if not _PLAIN_NUMBERS.issuperset(map(type, row)):
                for i, cell in zip(self._numbers, row, strict=True):
                    if not _fits(self.features[i].type, cell):
                        raise ValueError(cell)
        with np.errstate(over="ignore"):
            return np.array(rows, dtype=np.float32).reshape(len(rows), len(self._numbers))

    def _columns(self, rows: Sequence[list[Any]], numbers: npt.NDArray[np.float32]) -> Arrays:
        arrays: Arrays = {}
        place = {feature: column for column, feature in enumerate(self._numbers)}
        for i, feature in enumerate(self.features):
            if feature.numeric:
                arrays[feature.name] = numbers[:, place[i] : place[i] + 1]
                continue
            cells = [row[i] for row in rows]
            if any(not isinstance(cell, str) and not (cell is None and feature.missing) for cell in cells):
                raise self._value_faults(rows)
            # models are exported with missing text as "" (steps/models.py does the same)
            arrays[feature.name] = np.array(["" if c is None else c for c in cells], dtype=object).reshape(-1, 1)
        return arrays

    def _value_faults(self, rows: Sequence[list[Any]]) -> RequestFault:
        faults = []
        for number, row in enumerate(rows):
            for feature, cell in zip(self.features, row, strict=True):
                if not _usable(feature, cell):
                    faults.append(_fault(number, feature, cell))
            if len(faults) > 10 * MAX_DETAILS:
                break
        return all_of(faults, "invalid-value")

    def warnings(self, numbers: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """Return the values that are outside of the range that the model was trained on."""
        outside = (numbers < self._low) | (numbers > self._high)
        if not outside.any():
            return []
        found = []
        for row, column in np.argwhere(outside)[:MAX_DETAILS].tolist():
            feature, value = self.features[self._numbers[column]], float(numbers[row, column])
            text = f"row {row}: column {feature.name}: {value:g} is outside of {_range(feature)}, the range in training"
            found.append({"row": row, "column": feature.name, "value": value, "message": text})
        more = int(outside.sum()) - len(found)
        return found + ([{"message": f"and {more} more values outside of their ranges"}] if more else [])


def _near(name: str, names: Sequence[str]) -> list[str]:
    """Return the name that may be meant: a longer or shorter form (chol, cholesterol), or one with a slip in it."""
    short = [other for other in names if min(len(name), len(other)) >= 3 and name[:4].lower() == other[:4].lower()]
    return difflib.get_close_matches(name, names, n=1) or short[:1]


def _range(feature: Feature) -> str:
    low = "-inf" if feature.minimum is None else f"{feature.minimum:g}"
    return f"{low} to {'inf' if feature.maximum is None else f'{feature.maximum:g}'}"


def _fits(kind: str, cell: Any) -> bool:
    """Whether a cell may go into a number; a missing one is judged later."""
    if cell is None or type(cell) in (int, float):
        return True
    return kind == "boolean" and isinstance(cell, bool)


def _usable(feature: Feature, cell: Any) -> bool:
    if cell is None:
        return feature.missing
    if not feature.numeric:
        return isinstance(cell, str)
    if not _fits(feature.type, cell):
        return False
    if feature.type == "boolean":
        return bool(cell in (0, 1))
    # what does not fit into 32 bits becomes infinite
    return abs(cell) <= float(np.finfo(np.float32).max) and math.isfinite(cell)


def _fault(row: int, feature: Feature, cell: Any) -> dict[str, Any]:
    expected = _EXPECTED.get(feature.type, "text")
    if feature.missing:
        expected += " or null"
    number = feature.type in ("integer", "number") and type(cell) in (int, float)
    got = "a number that is too large" if number else None
    text = f"row {row}: column {feature.name}: expected {expected}, got {got or shown(cell)}"
    return {"row": row, "column": feature.name, "expected": expected, "got": shown(cell), "message": text}


def shown(value: Any) -> str:
    """Return a value of a request as it is shown in a message: short, and as JSON has it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 40 else text[:37] + "..."
