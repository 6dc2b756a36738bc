"""``columns:`` of ``validate``: simple rules by column, checked on whole columns at once."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from edgewright.errors import DataError
from edgewright.spec.steps.validate import ColumnRule, ValidateConfig

if TYPE_CHECKING:
    import pandas as pd


class ColumnChecks:
    """All rules of a task; knows across parts and batches which values were seen where ``unique`` is asked for.

    Args:
        config: The task's configuration.
        types: Types of the dataset's columns.

    Raises:
        DataError: a required column is missing or has another type.
    """

    def __init__(self, config: ValidateConfig, types: dict[str, str]) -> None:
        self._rules = config.columns
        self._seen: dict[str, set[int]] = {}
        for name, rule in self._rules.items():
            self._check_column(name, rule, types)

    @staticmethod
    def _check_column(name: str, rule: ColumnRule, types: dict[str, str]) -> None:
        if name not in types:
            if rule.required:
                near = difflib.get_close_matches(name, types, n=1)
                hint = f"columns are: {', '.join(types)}" + (f'; did you mean "{near[0]}"?' if near else "")
                raise DataError(f"there is no column {name!r}", hint=hint)
            return
        wanted = rule.type
        if wanted and wanted != types[name] and not (wanted == "number" and types[name] == "integer"):
            raise DataError(
                f"column {name} is of type {types[name]}, not {wanted}", hint="say types: in the ingest task, or here"
            )

    def reasons(self, frame: pd.DataFrame, part: str) -> dict[int, list[str]]:
        """Return what is wrong with each row, by its position in the frame."""
        found: dict[int, list[str]] = {}
        for name, rule in self._rules.items():
            if name not in frame.columns:
                continue
            column = frame[name]
            for wrong, reason in self._column(name, rule, column):
                for row in wrong.to_numpy().nonzero()[0].tolist():
                    found.setdefault(row, []).append(f"{name}: {reason}")
        return found

    def _column(self, name: str, rule: ColumnRule, column: pd.Series) -> list[tuple[Any, str]]:
        missing = column.isna()
        found: list[tuple[Any, str]] = []
        if rule.missing is False:
            found.append((missing, "is missing"))
        elif rule.missing is not True and len(column) and missing.mean() > rule.missing:
            found.append((missing, f"is missing in more than {rule.missing:.0%} of the rows"))
        if rule.minimum is not None:
            found.append((~missing & (column < rule.minimum), f"is less than {rule.minimum:g}"))
        if rule.maximum is not None:
            found.append((~missing & (column > rule.maximum), f"is more than {rule.maximum:g}"))
        if rule.allowed is not None:
            found.append((~missing & ~column.isin(rule.allowed), f"is none of {rule.allowed}"))
        if rule.pattern is not None:
            matches = column.astype("string").str.fullmatch(rule.pattern).fillna(True).astype(bool)
            found.append((~missing & ~matches, f"does not match {rule.pattern!r}"))
        if rule.unique:
            found.append((self._repeated(name, column, missing), "occurs twice"))
        return found

    def _repeated(self, name: str, column: pd.Series, missing: pd.Series) -> pd.Series:
        import pandas as pd

        hashes = pd.util.hash_pandas_object(column, index=False)
        seen = self._seen.setdefault(name, set())
        repeated = (hashes.duplicated() | hashes.isin(seen)) & ~missing
        seen.update(hashes[~missing].tolist())
        return repeated
