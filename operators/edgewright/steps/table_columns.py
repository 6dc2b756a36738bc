"""The columns of a table, from a pandera schema of the user's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from edgewright.errors import UserCodeError
from edgewright.steps.code import load_entry, user_code


def columns_of(folder: Path, entry: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return columns with their types, and those that must be there, from a pandera schema of the user's.

    Raises:
        UserCodeError: it is not there, raises, or is no schema.
    """
    with user_code(folder, entry), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found: Any = load_entry(folder, entry)
        if isinstance(found, type) and hasattr(found, "to_schema"):
            found = found.to_schema()
    columns: dict[str, Any] = getattr(found, "columns", None) or {}
    if not columns:
        raise UserCodeError(f"{entry} is no pandera schema with columns")
    kinds = {name: _kind(str(column.dtype)) for name, column in columns.items()}
    return kinds, tuple(name for name, column in columns.items() if column.required and not column.nullable)


def _kind(dtype: str) -> str:
    """Return the column type for a type of pandas: what JSON would have for it."""
    name = dtype.lower()
    if name.startswith(("float", "int", "uint", "decimal")):
        return "double"
    return "boolean" if name.startswith("bool") else "text"
