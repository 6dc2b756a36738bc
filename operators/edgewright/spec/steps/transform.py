"""``transform``: a function of yours from dataset to dataset, with state that is fitted on ``train`` only."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from edgewright.spec.steps.base import Dataset, EntryPoint, StepConfig
from edgewright.spec.steps.retention import RetentionField
from edgewright.spec.steps.spark import SparkConfig


class TransformConfig(StepConfig):
    """Applies a function, or a query, to every part of a dataset.

    Without ``fit``, ``entry`` is called as ``entry(frame, **args)`` for each part. With ``fit``,
    ``state = fit(train, **args)`` is called once, and then ``entry(frame, state, **args)`` for each part; the state is
    kept as an artifact. A ``fit`` that returns a scikit-learn transformer needs no ``entry``: its ``transform`` is
    applied here, and the exported model contains it, so that the service applies it too. With ``spark`` all of this
    happens on Spark.
    """

    ASIDE: ClassVar[frozenset[str]] = frozenset({"retention"})

    data: Dataset
    entry: EntryPoint | None = None
    fit: EntryPoint | None = None
    sql: Annotated[
        str | None,
        Field(
            min_length=1,
            description="A SELECT instead, by DuckDB or Spark. It sees data, the part at hand, and train; args are "
            "its parameters.",
            examples=["SELECT *, chol / avg(chol) OVER () AS relative FROM data"],
        ),
    ] = None
    args: dict[str, Any] = {}
    frame: Annotated[
        Literal["pandas", "arrow"],
        Field(description="What the function gets: a pandas DataFrame of a whole part, or Arrow batches."),
    ] = "pandas"
    retention: RetentionField = None
    spark: Annotated[
        SparkConfig | None,
        Field(description="Run the functions, or the query, on Apache Spark: they get and return Spark's DataFrames."),
    ] = None

    @model_validator(mode="after")
    def _something_to_do(self) -> TransformConfig:
        if self.sql:
            given = [name for name in ("entry", "fit", "frame") if name in self.model_fields_set]
            if given:
                raise ValueError(f"sql stands alone, without {' and '.join(given)}; use two tasks")
        elif not self.entry and not self.fit:
            raise ValueError("needs entry, fit or both; or sql")
        if self.fit and self.frame == "arrow":
            raise ValueError("fit works on pandas frames; leave frame out")
        if self.spark and "frame" in self.model_fields_set:
            raise ValueError("with spark a function gets Spark's DataFrame; leave frame out")
        if self.spark and self.fit and not self.entry:
            raise ValueError("fit on Spark needs an entry, which is called as entry(frame, state)")
        return self
