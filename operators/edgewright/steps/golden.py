"""The self-test of a release: a few rows, and the scores that each variant gave for them when it was published."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from edgewright.errors import DamagedArtifact, DataError, UserFault
from edgewright.registry.release import Golden, Variant
from edgewright.steps.data import Dataset
from edgewright.steps.models import load_model

log = logging.getLogger("edgewright.steps")

ROWS = 20


def golden_rows(dataset: Dataset | None, features: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Return up to 20 rows and where they are from.

    The first rows of the part that models are measured on, left out those with a gap where the training data had none
    (the service refuses such rows). Without a dataset the rows are made from the ranges that the model has seen.

    Args:
        dataset: Data that the model was measured on.
        features: The model's columns, as ``model.json`` has them.

    Raises:
        DataError: the dataset lacks columns.
    """
    if dataset is not None:
        part = dataset.evaluation_part()
        frame = dataset.frame(part)
        absent = [feature["name"] for feature in features if feature["name"] not in frame.columns]
        if absent:
            raise DataError(f"the data have no {', '.join(absent)}, which the model needs")
        complete = [feature["name"] for feature in features if not feature.get("missing")]
        rows = frame[frame[complete].notna().all(axis=1)].head(ROWS)
        if len(rows):
            return [
                {f["name"]: _cell(row[f["name"]], f) for f in features} for _, row in rows.iterrows()
            ], f"part {part}"
    return _made_rows(features), "made from the ranges of the training data"


def _cell(value: Any, feature: Mapping[str, Any]) -> Any:
    """Return a value as JSON has it, in the column's own type."""
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if feature["type"] == "boolean":
        return bool(value)
    if feature["type"] == "integer":
        return int(value)
    if feature["type"] == "number":
        return float(value) if math.isfinite(value) else None
    return str(value)


def _made_rows(features: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{feature["name"]: _made(feature, index / (ROWS - 1)) for feature in features} for index in range(ROWS)]


def _made(feature: Mapping[str, Any], share: float) -> Any:
    low, high = feature.get("minimum"), feature.get("maximum")
    value = (low or 0.0) + share * ((high or 0.0) - (low or 0.0))
    if feature["type"] == "boolean":
        return value >= 0.5
    if feature["type"] == "integer":
        return round(value)
    return value if feature["type"] == "number" else ""


def score_golden(
    variants: Sequence[Variant], rows: list[dict[str, Any]], source: str, own: set[str]
) -> tuple[Golden, list[str]]:
    """Ask every variant that runs here.

    Args:
        variants: The variants.
        rows: What :func:`golden_rows` returned.
        source: Where they are from.
        own: Targets whose folders came from this installation's own store, so that a pickle may be loaded.

    Returns:
        The self-test, and a note for every variant that cannot run here.

    Raises:
        DamagedArtifact: a model file does not match its digest.
        DataError: a variant's scores are no numbers.
    """
    frame = _frame(rows, variants[0].document["features"])
    outputs: dict[str, list[list[float]]] = {}
    notes: list[str] = []
    for variant in variants:
        if variant.document["format"] == "pickle" and variant.target not in own:
            continue
        try:
            scores = load_model(variant.folder).scores(frame)
        except (DamagedArtifact, DataError):
            raise
        except UserFault as error:
            notes.append(f"{variant.target} does not run here, so it has no self-test: {error.message}")
            continue
        if not np.isfinite(scores).all():
            raise DataError(f"{variant.target} gives scores that are no numbers", where=str(variant.folder.name))
        outputs[variant.target] = scores.tolist()
    return Golden(rows, outputs, source), notes


def _frame(rows: list[dict[str, Any]], features: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as a model is given them: numbers as floats, gaps as NaN."""
    columns: dict[str, Any] = {}
    for feature in features:
        values = [row[feature["name"]] for row in rows]
        if feature["type"] in ("integer", "number", "boolean"):
            columns[feature["name"]] = pd.Series([math.nan if v is None else float(v) for v in values], dtype="float64")
        else:
            columns[feature["name"]] = pd.Series(values, dtype=object)
    return pd.DataFrame(columns)
