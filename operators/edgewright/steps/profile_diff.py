"""What changed between two versions of a dataset: columns, rows, distributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewright.steps.data import Dataset
from edgewright.steps.hashes import HashSet, row_hashes
from edgewright.steps.profile import QUANTILES, profile

#: From here on a distribution is said to have changed: the usual limits of the population stability index.
MODERATE, LARGE = 0.1, 0.25
_LEAST = 1e-4
_NUMBERS = ("integer", "number")


def compare(before: Dataset, after: Dataset) -> dict[str, Any]:
    """Return what changed from one dataset to another, as plain JSON."""
    old, new = profile(before), profile(after)
    was = {column["name"]: column for column in old["columns"]}
    now = {column["name"]: column for column in new["columns"]}
    same = [name for name in now if name in was and now[name]["type"] == was[name]["type"]]
    return {
        "version": 1,
        "schema": {
            "added": [name for name in now if name not in was],
            "removed": [name for name in was if name not in now],
            "changed": [
                {"name": n, "before": was[n]["type"], "after": now[n]["type"]}
                for n in now
                if n in was and n not in same
            ],
            "label": {"before": old["label"], "after": new["label"]},
        },
        "rows": {"before": old["rows"], "after": new["rows"], **_rows(before, after)},
        "parts": {"before": old["parts"], "after": new["parts"]},
        "columns": [_column(was[name], now[name]) for name in same],
    }


def _rows(before: Dataset, after: Dataset) -> dict[str, int]:
    """Return how many rows are in one alone; nothing where the columns differ, because then every row does."""
    if [(c["name"], c["type"]) for c in before.columns] != [(c["name"], c["type"]) for c in after.columns]:
        return {}
    old, new = (HashSet(row_hashes(b) for part in d.part_names for b in d.batches(part)) for d in (before, after))
    return {"added": _absent(after, old), "removed": _absent(before, new)}


def _absent(dataset: Dataset, known: HashSet) -> int:
    found = 0
    for part in dataset.part_names:
        for batch in dataset.batches(part):
            found += int((~known.contains(row_hashes(batch))).sum())
    return found


def _column(was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    shift = _shift(was, now)
    found: dict[str, Any] = {
        "name": now["name"], "type": now["type"],
        "missing_share": {"before": was["missing_share"], "after": now["missing_share"]},
        "stability_index": None if shift is None else round(shift, 4), "verdict": verdict(shift),
    }  # fmt: skip
    if now["type"] in _NUMBERS:
        found |= {key: {"before": was.get(key), "after": now.get(key)} for key in ("minimum", "mean", "maximum")}
    return found


def verdict(shift: float | None) -> str:
    """Return what a stability index means in a word."""
    if shift is None:
        return "not comparable"
    return "same" if shift < MODERATE else "changed" if shift < LARGE else "changed much"


def _shift(was: dict[str, Any], now: dict[str, Any]) -> float | None:
    """Return the population stability index of two columns, missing values as a group of their own."""
    if "quantiles" in was and "quantiles" in now:
        old, new = _shares_of_numbers(was, now)
    elif "frequent" in was and "frequent" in now:
        old, new = _shares_of_values(was, now)
    else:
        return None
    old = np.append(old * (1 - was["missing_share"]), was["missing_share"]).clip(_LEAST)
    new = np.append(new * (1 - now["missing_share"]), now["missing_share"]).clip(_LEAST)
    return float(((new - old) * np.log(new / old)).sum())


def _shares_of_numbers(was: dict[str, Any], now: dict[str, Any]) -> tuple[Any, Any]:
    """Return the shares of values between the quantiles of the first, by way of the second's histogram."""
    inner = np.unique([was["quantiles"][f"{q:g}"] for q in QUANTILES[1:-1]])
    return _below(was, inner), _below(now, inner)


def _below(column: dict[str, Any], marks: Any) -> Any:
    edges, counts = np.array(column["histogram"]["edges"]), np.array(column["histogram"]["counts"], dtype=np.float64)
    whole = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    return np.diff(np.concatenate([[0.0], np.interp(marks, edges, whole), [1.0]]))


def _shares_of_values(was: dict[str, Any], now: dict[str, Any]) -> tuple[Any, Any]:
    old = {str(entry["value"]): entry["count"] for entry in was["frequent"]}
    new = {str(entry["value"]): entry["count"] for entry in now["frequent"]}
    names = sorted(set(old) | set(new))
    shares = []
    for found in (old, new):
        values = np.array([found.get(name, 0) for name in names], dtype=np.float64)
        shares.append(values / max(values.sum(), 1.0))
    return shares[0], shares[1]
