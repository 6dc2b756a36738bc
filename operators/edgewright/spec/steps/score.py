"""``score``: ask a model about every row of files of any size, shard by shard."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from edgewright.spec.steps.base import Fraction, Model, StepConfig
from edgewright.spec.steps.ingest import ColumnType, Source, _without_password

#: Columns that every output has; probabilities come after them.
OWN_COLUMNS = ("file", "row", "prediction", "model")
MIB = 1 << 20
#: How a version is named: ``NAME``, ``NAME@ALIAS`` or ``NAME/VERSION``.
REGISTERED = r"^[^/@\s]+([/@][^/@\s]+)?$"


class Slice(StepConfig):
    """Which share of the shards this task takes, where a pipeline maps over several tasks."""

    index: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _inside(self) -> Slice:
        if self.index >= self.of:
            raise ValueError(f"index counts from 0, so with of: {self.of} it is at most {self.of - 1}")
        return self


class ScoreConfig(StepConfig):
    """Scores files as they are: sharded, resumable, in constant memory; rows that cannot be scored go aside."""

    ONE_OF = ("model", "registered")

    model: Model | None = None
    registered: Annotated[
        str | None,
        Field(
            pattern=REGISTERED,
            description="A registered model: NAME (its champion), NAME@ALIAS or NAME/VERSION.",
            examples=["bracelet@champion"],
        ),
    ] = None
    variant: Annotated[
        str | None, Field(description="Variant of a registered model. Default: onnx, else the one that is served.")
    ] = None
    source: Annotated[
        Source | Annotated[list[Source], Field(min_length=1)],
        Field(description="Files: relative paths, file://, s3:// or another fsspec address; * stands for any name."),
    ]
    to: Annotated[
        Annotated[str, AfterValidator(_without_password), Field(min_length=1)] | None,
        Field(description="Folder for predictions: file://, s3://. Default: scores/DAG/TASK in the store."),
    ] = None
    format: Literal["auto", "csv", "parquet", "jsonl"] = "auto"
    output: Literal["parquet", "csv", "jsonl"] = "parquet"
    keep: Annotated[list[str], Field(description="Columns of the input that stand beside the predictions.")] = []
    types: Annotated[dict[str, ColumnType], Field(description="Types of kept columns of a CSV. Default: string.")] = {}
    probabilities: Annotated[bool, Field(description="One column a class, with its probability.")] = True
    missing: Annotated[list[str], Field(description="Texts in a CSV that mean a missing value.")] = [
        "",
        "NA",
        "NaN",
        "null",
    ]
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: str = "utf-8"
    quotes: Annotated[bool, Field(description="Whether a CSV's values may stand in double quotes.")] = True
    max_rejected: Annotated[Fraction, Field(description="Share of rows that may go aside before the task fails.")] = (
        0.01
    )
    shard_mib: Annotated[float, Field(gt=0, le=4096, description="MiB of input in a shard.")] = 64
    processes: Annotated[int | None, Field(ge=1, description="Default: one a core.")] = None
    engine: Annotated[
        Literal["auto", "onnx", "native"],
        Field(description="auto: what is faster on a sample of the rows; it is recorded."),
    ] = "auto"
    allow_pickle: Annotated[
        bool, Field(description="Let engine: native load the pickled variant of a registered model.")
    ] = False
    slice: Slice | None = None
    connection: Annotated[str | None, Field(description="Airflow connection with the credentials of s3://.")] = None

    @model_validator(mode="after")
    def _fits_together(self) -> ScoreConfig:
        if (self.model is None) == (self.registered is None):
            raise ValueError("give either model: or registered:, exactly one of them")
        own = [name for name in self.keep if name in OWN_COLUMNS or name.startswith("probability_")]
        if own:
            raise ValueError(f"keep: {', '.join(own)} are names of columns that score itself writes")
        if len(set(self.keep)) < len(self.keep):
            raise ValueError("keep must name each column only once")
        if unkept := sorted(set(self.types) - set(self.keep)):
            raise ValueError(f"types: is for kept columns, and {', '.join(unkept)} is not in keep:")
        if self.model is not None and (self.variant or self.allow_pickle):
            raise ValueError("variant and allow_pickle are for registered:")
        return self

    @property
    def sources(self) -> list[str]:
        """The addresses, always as a list."""
        return [self.source] if isinstance(self.source, str) else list(self.source)
