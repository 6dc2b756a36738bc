"""``schema:`` of ``validate``: a pandera schema of the user's, applied lazily so that every fault is found."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from edgewright.errors import DataError, UserCodeError
from edgewright.steps.code import load_entry, user_code
from edgewright.steps.context import StepContext

if TYPE_CHECKING:
    import pandas as pd


class UserSchema:
    """A pandera ``DataFrameModel`` class or ``DataFrameSchema`` object, named as ``file.py:Name``.

    Args:
        entry: Where it is.
        context: The step, for the pipeline's folder.

    Raises:
        UserCodeError: it is not there, raises, or is no schema.
    """

    def __init__(self, entry: str, context: StepContext) -> None:
        self.entry = entry
        self._folder = context.source_folder
        with user_code(self._folder, entry), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            found: Any = load_entry(self._folder, entry)
            if isinstance(found, type) and hasattr(found, "to_schema"):
                found = found.to_schema()
        if not hasattr(found, "validate"):
            raise UserCodeError(
                f"{entry} is no pandera schema but a {type(found).__name__}",
                hint="a class that derives from pandera.pandas.DataFrameModel, or a DataFrameSchema",
            )
        self._schema = found

    def reasons(self, frame: pd.DataFrame) -> list[tuple[int, str]]:
        """Return ``(row position, reason)`` for everything that the schema refuses.

        Raises:
            DataError: the frame as a whole does not fit: a column is missing or has another type.
            UserCodeError: a check of the schema raises.
        """
        from pandera.errors import SchemaErrors

        plain = frame.reset_index(drop=True)
        with user_code(self._folder, self.entry):
            try:
                self._schema.validate(plain, lazy=True)
            except SchemaErrors as error:
                cases = error.failure_cases
            else:
                return []
        whole = cases[cases["index"].isna()]
        if len(whole):
            faults = "; ".join(_whole_frame(case) for case in whole.to_dict("records"))
            raise DataError(
                f"the data do not fit {self.entry}: {faults}",
                hint="change the schema, or say types: in the ingest task",
            )
        return [(int(case["index"]), f"{case['column']}: {_check(case)}") for case in cases.to_dict("records")]


def _check(case: dict[str, Any]) -> str:
    return f"fails {case['check']}" if case["check"] != "not_nullable" else "is missing"


def _whole_frame(case: dict[str, Any]) -> str:
    if str(case["check"]) == "column_in_dataframe":
        return f"column {case['failure_case']} is missing"
    return f"{case['column'] or 'the frame'} fails {case['check']}: {case['failure_case']}"
