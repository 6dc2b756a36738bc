"""``columns:`` of ``validate``: simple rules by column, checked on whole columns at once."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from edgewright.errors import ConfigError, DataError
from edgewright.spec.steps.validate import ColumnRule, ValidateConfig
from edgewright.steps.hashes import HashSet, row_hashes

if TYPE_CHECKING:
    import pandas as pd

    from edgewright.steps.data import Dataset

_NUMBERS = ("integer", "number")


class Repeated:
    """Finds values (or combinations of values) that occurred before, in any part and any batch.

    Args:
        names: The columns that must differ together.
        missing: Whether missing values count as equal; else rows with one are never repeated.
    """

    def __init__(self, names: list[str], *, missing: bool) -> None:
        self.names = names
        self._missing = missing
        self._seen = HashSet()

    def rows(self, batch: pa.RecordBatch) -> Any:
        """Return a boolean array: which rows repeat an earlier one. The first of equal rows does not."""
        chosen = batch.select(self.names)
        hashes = row_hashes(chosen)
        first = np.zeros(len(hashes), dtype=bool)
        first[np.unique(hashes, return_index=True)[1]] = True
        repeated = ~first | self._seen.contains(hashes)
        self._seen.add(hashes)
        if not self._missing:
            for column in chosen.columns:
                repeated &= column.is_valid().to_numpy(zero_copy_only=False)
        return repeated


class ColumnChecks:
    """All rules of a task.

    Args:
        config: The task's configuration.
        dataset: What is to be checked.

    Raises:
        ConfigError: a rule cannot be applied to the column's type.
        DataError: a required column is missing or has another type.
    """

    def __init__(self, config: ValidateConfig, dataset: Dataset) -> None:
        types = {column["name"]: column["type"] for column in dataset.columns}
        self._rules = {name: rule for name, rule in config.columns.items() if name in types}
        for name, rule in config.columns.items():
            _check_column(name, rule, types)
        self._unique = {name: Repeated([name], missing=False) for name, rule in self._rules.items() if rule.unique}
        rows = max(dataset.manifest["rows"], 1)
        missing = dataset.manifest.get("missing", {})
        self._missing = {name: missing.get(name, 0) / rows for name in self._rules}

    def reasons(self, frame: pd.DataFrame, batch: pa.RecordBatch) -> list[tuple[int, str]]:
        """Return ``(row position, reason)`` for everything that is wrong.

        Args:
            frame: Rows, as pandas has them.
            batch: The same rows, as Arrow has them.
        """
        found: list[tuple[int, str]] = []
        for name, rule in self._rules.items():
            for wrong, reason in self._column(name, rule, frame[name]):
                found += [(row, f"{name}: {reason}") for row in np.flatnonzero(wrong).tolist()]
        for name, repeated in self._unique.items():
            found += [(row, f"{name}: occurs before") for row in np.flatnonzero(repeated.rows(batch)).tolist()]
        return found

    def _column(self, name: str, rule: ColumnRule, column: pd.Series[Any]) -> list[tuple[Any, str]]:
        missing = column.isna()
        there = ~missing
        found: list[tuple[Any, str]] = []
        if rule.missing is False:
            found.append((missing, "is missing"))
        elif rule.missing is not True and self._missing[name] > rule.missing:
            share = self._missing[name]
            found.append((missing, f"is missing in {share:.2%} of the rows, more than {rule.missing:.2%}"))
        if rule.minimum is not None:
            found.append((there & (column < rule.minimum), f"is less than {rule.minimum:g}"))
        if rule.maximum is not None:
            found.append((there & (column > rule.maximum), f"is more than {rule.maximum:g}"))
        if rule.allowed is not None:
            found.append((there & ~column.isin(rule.allowed), f"is none of {rule.allowed}"))
        if rule.pattern is not None:
            expression = re.compile(rule.pattern)
            matches = column.map(lambda text: expression.fullmatch(text) is not None, na_action="ignore")
            found.append((there & ~matches.fillna(True).astype(bool), f"does not match {rule.pattern!r}"))
        return [(wrong.to_numpy(dtype=bool), reason) for wrong, reason in found]


def _check_column(name: str, rule: ColumnRule, types: dict[str, str]) -> None:
    where = f"validate.with.columns.{name}"
    if name not in types:
        if rule.required:
            near = difflib.get_close_matches(name, types, n=1)
            hint = f"columns are: {', '.join(types)}" + (f'; did you mean "{near[0]}"?' if near else "")
            raise DataError(f"there is no column {name!r}", where=where, hint=hint)
        return
    kind = types[name]
    if rule.type and rule.type != kind and not (rule.type == "number" and kind == "integer"):
        raise DataError(
            f"column {name} is of type {kind}, not {rule.type}",
            where=where,
            hint=f"say types: {{{name}: {rule.type}}} in the ingest task, or type: {kind} here",
        )
    if (rule.minimum is not None or rule.maximum is not None) and kind not in _NUMBERS:
        raise ConfigError(f"column {name} is of type {kind}: it has no minimum and no maximum", where=where)
    if rule.pattern is not None:
        _check_pattern(name, rule.pattern, kind, where)


def _check_pattern(name: str, pattern: str, kind: str, where: str) -> None:
    if kind != "string":
        hint = "use allowed:, minimum: or maximum:; or read it as text: types: in the ingest task"
        raise ConfigError(f"column {name} is of type {kind}: a pattern is for text", where=where, hint=hint)
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"pattern {pattern!r} is no regular expression: {error}", where=where) from error
