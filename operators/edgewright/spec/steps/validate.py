"""``validate``: keep the rows that are right, put the others aside with the reason, pass or fail by a threshold."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from edgewright.spec.steps.base import Dataset, EntryPoint, Fraction, StepConfig
from edgewright.spec.steps.ingest import ColumnType
from edgewright.spec.steps.retention import RetentionField


class ColumnRule(StepConfig):
    """What a column's values must be."""

    type: ColumnType | None = None
    minimum: float | None = None
    maximum: float | None = None
    allowed: Annotated[list[Any] | None, Field(description="The only values that are right.")] = None
    pattern: Annotated[str | None, Field(description="Regular expression that the whole text must match.")] = None
    required: Annotated[bool, Field(description="The column must exist.")] = True
    missing: Annotated[bool | float, Field(description="Whether values may be missing, or which share of them.")] = True
    unique: bool = False


class ValidateConfig(StepConfig):
    """Checks every part of a dataset, by a pandera schema of yours, by ranges here, or both."""

    ASIDE: ClassVar[frozenset[str]] = frozenset({"retention"})

    data: Dataset
    schema_: Annotated[
        EntryPoint | None, Field(alias="schema", description="pandera schema, such as schema.py:Bracelet.")
    ] = None
    columns: dict[str, ColumnRule] = {}
    max_rejected: Annotated[Fraction, Field(description="Largest share of rejected rows that still passes.")] = 0.0
    min_class_share: Annotated[Fraction, Field(description="Smallest share that a value of the label may have.")] = 0.0
    leakage: Annotated[bool, Field(description="Refuse rows that occur in two parts.")] = True
    retention: RetentionField = None
