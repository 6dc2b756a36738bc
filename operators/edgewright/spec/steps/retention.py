"""``retention:`` of the steps that make datasets: how long their versions stay in the store."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from edgewright.artifacts.ages import AGE_PATTERN
from edgewright.spec.steps.base import MAPPING, StepConfig

Age = Annotated[
    str,
    Field(
        pattern=AGE_PATTERN,
        description="Hours, days or weeks: 12h, 90d, 8w.",
        examples=["90d"],
    ),
]


class LongRetention(StepConfig):
    """How long versions stay, and what holds for those that registered models were made from."""

    after: Age
    champions: Annotated[
        Literal["remove", "keep"],
        Field(
            description="Versions behind a model that an alias of the registry points to (champion, challenger, "
            "previous): keep them while it does, or remove them like all others."
        ),
    ] = "remove"


Retention = Annotated[
    Annotated[Age, Tag("age")] | Annotated[LongRetention, Tag(MAPPING)],
    # so that a fault speaks of what was meant
    Discriminator(lambda value: MAPPING if isinstance(value, (dict, LongRetention)) else "age"),
]
RetentionField = Annotated[
    Retention | None,
    Field(
        description="After that time edgewright gc removes a version, whatever else needs it, and leaves a tombstone "
        "with its lineage: 90d, or {after: 90d, champions: keep}."
    ),
]
