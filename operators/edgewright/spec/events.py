"""``triggers:``: the shapes of event sources."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from edgewright.spec.arguments import Invalid, duration
from edgewright.spec.faults import Faults, listing
from edgewright.spec.step_config import check_model
from edgewright.spec.steps.base import StepConfig


def _check_duration(value: Any) -> Any:
    try:
        duration(value)
    except Invalid:
        raise ValueError("must be a duration") from None
    return value


Duration = Annotated[
    str | int | float,
    BeforeValidator(_check_duration),
    Field(description='Seconds, "5m", "1h30m" or ISO 8601 such as "PT5M".', examples=["60s", "5m"]),
]


class Batch(StepConfig):
    """When what has come in becomes a run: at the first of both limits."""

    max_messages: Annotated[int, Field(ge=1, description="Messages that fill a batch.")] = 500
    max_wait: Duration = "60s"


class KafkaTrigger(StepConfig):
    """Messages of a Kafka topic start the pipeline."""

    topic: Annotated[str, Field(min_length=1, description="Name of the topic.")]
    batch: Batch = Batch()


class ObjectsTrigger(StepConfig):
    """Objects that land in a bucket or folder start the pipeline."""

    uri: Annotated[
        str, Field(min_length=1, description="Address with a pattern.", examples=["s3://raw/bracelet/*.csv"])
    ]


TRIGGERS: dict[str, type[StepConfig]] = {"kafka": KafkaTrigger, "objects": ObjectsTrigger}


def read_triggers(value: Any, faults: Faults) -> tuple[dict[str, Any], ...]:
    """Return the event sources, after noting what is wrong with them."""
    if value is None:
        return ()
    if not isinstance(value, list):
        faults.add(("triggers",), "must be a list", allowed="[{kafka: {topic: NAME}}]", code="type")
        return ()
    for index, entry in enumerate(value):
        place = ("triggers", index)
        if not isinstance(entry, dict) or len(entry) != 1:
            faults.add(place, "a trigger is one event source", allowed=f"one of {listing(TRIGGERS)}", code="type")
            continue
        ((kind, config),) = entry.items()
        if kind not in TRIGGERS:
            faults.unknown_key((*place, kind), TRIGGERS, "event source")
        else:
            check_model(TRIGGERS[kind], config, (*place, kind), faults)
    return tuple(entry for entry in value if isinstance(entry, dict))
