"""``schema:`` of ``validate``: a pandera schema of the user's, applied lazily so that every fault is found."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from edgewright.errors import DataError, UserCodeError
from edgewright.steps.code import load_entry, user_code
from edgewright.steps.rules import Repeated

if TYPE_CHECKING:
    import pandas as pd


class UserSchema:
    """A pandera ``DataFrameModel`` class or ``DataFrameSchema`` object, named as ``file.py:Name``.

    Rows come in batches, so what the schema demands to be unique is checked here, over all batches and parts.

    Args:
        entry: Where it is.
        folder: The pipeline's folder.
        names: The dataset's columns.

    Raises:
        UserCodeError: it is not there, raises, or is no schema.
    """

    def __init__(self, entry: str, folder: Path, names: list[str]) -> None:
        self.entry = entry
        self._folder = folder
        with user_code(self._folder, entry), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            found: Any = load_entry(self._folder, entry)
            if isinstance(found, type) and hasattr(found, "to_schema"):
                found = found.to_schema()
        if not (hasattr(found, "validate") and hasattr(found, "columns")):
            raise UserCodeError(
                f"{entry} is no pandera schema but a {type(found).__name__}",
                hint="a class that derives from pandera.pandas.DataFrameModel, or a DataFrameSchema",
            )
        self._unique = [Repeated(group, missing=True) for group in _unique_groups(found) if set(group) <= set(names)]
        self._schema = _without_uniqueness(found)

    def reasons(self, frame: pd.DataFrame, batch: pa.RecordBatch) -> list[tuple[int, str]]:
        """Return ``(row position, reason)`` for everything that the schema refuses.

        Args:
            frame: Rows, as pandas has them.
            batch: The same rows, as Arrow has them.

        Raises:
            DataError: the frame as a whole does not fit: a column is missing or has another type.
            UserCodeError: a check of the schema raises.
        """
        found = self.failures(frame.reset_index(drop=True))
        for repeated in self._unique:
            text = f"{', '.join(repeated.names)}: occurs before"
            found += [(row, text) for row in np.flatnonzero(repeated.rows(batch)).tolist()]
        return found

    @property
    def columns(self) -> list[str]:
        """The columns that it names; those that it names by a pattern are not among them."""
        return [name for name, column in self._schema.columns.items() if not column.regex]

    def failures(self, frame: pd.DataFrame) -> list[tuple[int, str]]:
        """Return ``(row position, reason)`` for what the schema refuses, but for what occurs twice.

        Raises:
            DataError: the frame as a whole does not fit.
            UserCodeError: a check of the schema raises.
        """
        from pandera.errors import SchemaErrors

        with user_code(self._folder, self.entry):
            try:
                self._schema.validate(frame, lazy=True)
            except SchemaErrors as error:
                cases = error.failure_cases.to_dict("records")
                coerced = {case["column"] for case in cases if str(case["check"]).startswith("coerce_dtype")}
                raised = _raised(error, coerced)
            else:
                return []
        # what cannot be converted is of another type, and no check can be asked about it
        cases = [case for case in cases if case["column"] not in coerced or not (_is_type(case) or _is_raised(case))]
        whole = [case for case in cases if case["index"] is None or case["index"] != case["index"] or _is_type(case)]
        faults = list(dict.fromkeys(_whole_frame(case) for case in whole if not _is_raised(case)))
        if faults:
            raise DataError(
                f"the data do not fit {self.entry}: {'; '.join(faults)}",
                hint="change the schema (coerce=True converts), or say types: in the ingest task",
            )
        if raised:
            raise UserCodeError(f"a check of {self.entry} raised: {raised}", hint="mend the check")
        return [(int(case["index"]), _row(case)) for case in cases]


def _unique_groups(schema: Any) -> list[list[str]]:
    """Return the columns, and the combinations of columns, that must be unique."""
    groups = [[name] for name, column in schema.columns.items() if column.unique and not column.regex]
    together = schema.unique
    if together:
        first = together if isinstance(together, list) else [together]
        groups += [list(group) for group in first] if isinstance(first[0], (list, tuple)) else [list(first)]
    return groups


def _without_uniqueness(schema: Any) -> Any:
    names = {name: {"unique": False} for name, column in schema.columns.items() if column.unique and not column.regex}
    schema = schema.update_columns(names)
    schema.unique = None
    return schema


def _raised(error: Any, coerced: set[str]) -> str:
    """Return what a check raised, if one did that was asked about values of the right type."""
    for fault in error.schema_errors:
        if getattr(fault.schema, "name", None) in coerced:
            continue
        reason = getattr(fault, "reason_code", None)
        if getattr(reason, "name", "") == "CHECK_ERROR":
            cases = fault.failure_cases
            what = cases if isinstance(cases, str) else cases.iloc[0]["failure_case"]
            return f"{getattr(fault.check, 'name', None) or fault.check}: {what}"
    return ""


def _is_raised(case: dict[str, Any]) -> bool:
    return "Error(" in str(case["failure_case"])


def _is_type(case: dict[str, Any]) -> bool:
    return str(case["check"]).startswith("dtype(")


def _row(case: dict[str, Any]) -> str:
    if case["schema_context"] == "DataFrameSchema":
        return f"fails {case['check']}"
    check = str(case["check"])
    if check == "not_nullable":
        return f"{case['column']}: is missing"
    if check.startswith("coerce_dtype"):
        return f"{case['column']}: cannot be converted to {check.removeprefix('coerce_dtype')[2:-2]}"
    return f"{case['column']}: fails {check}"


def _whole_frame(case: dict[str, Any]) -> str:
    check = str(case["check"])
    if check == "column_in_dataframe":
        return f"column {case['failure_case']} is missing"
    if check == "column_in_schema":
        return f"column {case['failure_case']} is not in the schema, which is strict"
    if _is_type(case):
        kind = check.removeprefix("dtype")[2:-2]
        return f"column {case['column']} is not of type {kind} (such as {case['failure_case']!r})"
    return f"{case['column'] or 'the frame'} as a whole fails {check}"
