"""``triggers:`` and ``profiles:``: the shapes of event sources and of places to run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


class Resources(StepConfig):
    """What a task of this profile gets."""

    cpu: Annotated[float | str | None, Field(description='Cores, or "500m".')] = None
    memory: Annotated[str | None, Field(description="Such as 8Gi.")] = None
    gpu: Annotated[int | None, Field(ge=0, description="Number of GPUs.")] = None
    fpga: Annotated[int | None, Field(ge=0, description="Number of FPGAs.")] = None


class Toleration(StepConfig):
    """A taint of nodes that does not keep the pod away."""

    key: Annotated[str | None, Field(description="Key of the taint. Default: every key.")] = None
    operator: Annotated[Literal["Equal", "Exists"], Field(description="Whether the value counts.")] = "Equal"
    value: Annotated[str | None, Field(description="Value of the taint.")] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None, Field(description="Default: every effect.")
    ] = None


class Profile(StepConfig):
    """A named place to run."""

    kind: Annotated[Literal["local", "docker", "kubernetes"], Field(description="What runs the task.")]
    image: Annotated[str | None, Field(description="Container image.")] = None
    resources: Resources = Resources()
    selectors: Annotated[dict[str, str], Field(description="Labels that a node must have.")] = {}
    tolerations: Annotated[list[Toleration], Field(description="Kubernetes tolerations.")] = []


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


def read_profiles(value: Any, faults: Faults) -> dict[str, dict[str, Any]]:
    """Return the profiles of the document, after noting what is wrong with them."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.add(("profiles",), "must be a mapping of names", code="type")
        return {}
    for name, profile in value.items():
        if name == "local":
            faults.add(("profiles", name), "local is always there", allowed="another name", code="value", key=True)
        check_model(Profile, profile, ("profiles", name), faults)
    return value
