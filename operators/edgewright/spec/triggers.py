"""``triggers:``: the event sources that start a pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgewright.spec.code import EntryPoints
from edgewright.spec.event_fields import Duration, Topic
from edgewright.spec.event_fields import seconds as seconds
from edgewright.spec.faults import Faults, listing
from edgewright.spec.step_config import check_model
from edgewright.spec.steps.base import EntryPoint, Start, StepConfig
from edgewright.spec.steps.wait import Marker as Marker

Order = Annotated[
    Literal["any", "strict"],
    Field(description="strict: a batch starts only when the one before it has ended well. Default: any."),
]
Cooldown = Annotated[
    Duration | None,
    Field(description="At least so long between two starts; then all that waits starts together."),
]


class KafkaBatch(StepConfig):
    """When what has come in becomes a batch: at the first of both limits."""

    max_messages: Annotated[int, Field(ge=1, le=1_000_000, description="Messages that fill a batch.")] = 500
    max_wait: Duration = "60s"


class ObjectsBatch(StepConfig):
    """When what has come in becomes a batch: with so many objects, or when the first has waited so long."""

    min_objects: Annotated[int, Field(ge=1, le=100_000, description="Objects that fill a batch.")] = 1
    max_wait: Duration = "60s"


class Trigger(StepConfig):
    """What every event source has."""

    connection: Annotated[str | None, Field(description="Airflow connection.")] = None
    cooldown: Cooldown = None
    reply: Annotated[Topic | None, Field(description="Topic that gets a message when a run of a batch has ended.")] = (
        None
    )


class KafkaTrigger(Trigger):
    """Messages of a Kafka topic start the pipeline."""

    topic: Annotated[
        Topic | Annotated[list[Topic], Field(min_length=1)],
        Field(description="Name of the topic, a list of names, or a pattern that begins with ^."),
    ]
    connection: Annotated[str, Field(min_length=1, description="Airflow connection of the type kafka.")] = (
        "kafka_default"
    )
    format: Annotated[Literal["json", "avro", "text", "bytes"], Field(description="What a message holds.")] = "json"
    schema_: Annotated[
        EntryPoint | None,
        Field(
            alias="schema",
            description="pandera schema, such as schema.py:Bracelet; messages that do not fit go to the dead letters.",
        ),
    ] = None
    key: Annotated[
        str | None, Field(min_length=1, description="Field by which messages of a batch are the same; the last counts.")
    ] = None
    batch: KafkaBatch = KafkaBatch()
    per_message: Annotated[bool, Field(description="Each message is a batch of its own.")] = False
    start: Annotated[
        Start,
        Field(description="Where to begin the first time: latest, earliest, or a date.", examples=["earliest"]),
    ] = "latest"
    dead_letters: Annotated[Topic | None, Field(description="Topic for messages that cannot be read.")] = None
    order: Order = "any"

    @model_validator(mode="after")
    def _fits_together(self) -> KafkaTrigger:
        if self.per_message and "batch" in self.model_fields_set:
            raise ValueError("per_message and batch exclude each other")
        given = "key" if self.key else "schema" if self.schema_ else None
        if self.format in ("text", "bytes") and given:
            raise ValueError(f"{given} needs messages with fields, not format: {self.format}")
        for name in ("reply", "dead_letters"):
            topic = getattr(self, name)
            if topic is not None and (topic.startswith("^") or topic in self.topics):
                raise ValueError(f"{name} must be one topic, and none that the trigger reads")
        return self

    @property
    def topics(self) -> list[str]:
        """The topics and patterns, in the document's order."""
        return [self.topic] if isinstance(self.topic, str) else list(self.topic)


class Notifications(StepConfig):
    """Where an object store tells of its objects."""

    sqs: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^@]+$",
            description="Address of a queue of SQS; the objects' connection has its credentials.",
            examples=["https://sqs.eu-west-1.amazonaws.com/123456789012/raw"],
        ),
    ] = None
    kafka: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="Kafka topic, as MinIO sends to.")
    ] = None
    connection: Annotated[
        str | None, Field(min_length=1, description="Airflow connection of the topic. Default: kafka_default.")
    ] = None
    sweep: Annotated[
        Duration, Field(description="Time between two looks at the store itself, for what nobody told of.")
    ] = "15m"

    @model_validator(mode="after")
    def _fits_together(self) -> Notifications:
        if (self.sqs is None) == (self.kafka is None):
            raise ValueError("give exactly one of sqs: and kafka:")
        if self.sqs is not None and self.connection is not None:
            raise ValueError("connection is for kafka:; a queue has the credentials of the objects")
        return self

    @property
    def topic_connection(self) -> str | None:
        """The connection of the topic; ``None`` for a queue."""
        return None if self.kafka is None else self.connection or "kafka_default"


class ObjectsTrigger(Trigger):
    """Objects that land in a bucket or folder start the pipeline."""

    uri: Annotated[
        str,
        Field(
            min_length=1,
            description="s3:// or file:// address; the last part is a pattern.",
            examples=["s3://raw/bracelet/*.csv"],
        ),
    ]
    batch: ObjectsBatch = ObjectsBatch()
    when: Annotated[
        Literal["closed"] | Marker,
        Field(description="closed: as soon as an object is whole; or {marker: NAME}: as soon as its folder has that."),
    ] = "closed"
    order: Annotated[Literal["key", "time"], Field(description="By which the objects of a batch are ordered.")] = "key"
    every: Annotated[Duration, Field(description="Time between two looks.")] = "10s"
    notifications: Annotated[
        Notifications | None,
        Field(
            description="Hear of objects by {sqs: QUEUE} or {kafka: TOPIC}, instead of looking every few seconds.",
            examples=[{"sqs": "https://sqs.eu-west-1.amazonaws.com/123456789012/raw"}],
        ),
    ] = None

    @model_validator(mode="after")
    def _fits_together(self) -> ObjectsTrigger:
        if self.notifications is not None and not self.uri.startswith("s3://"):
            raise ValueError("notifications are for s3://")
        if self.notifications is not None and "every" in self.model_fields_set:
            raise ValueError("with notifications the time between two looks is notifications.sweep, not every")
        return self


class RegistryTrigger(Trigger):
    """A new version of a registered model, or an alias that moves, starts the pipeline."""

    model: Annotated[str, Field(min_length=1, description='Name of the model; "*" stands for any letters.')] = "*"
    tag: Annotated[
        dict[str, str], Field(description='Tags that the version must have; "*" in a value stands for any letters.')
    ] = {}
    alias: Annotated[str | None, Field(min_length=1, description="Alias that must point to the version.")] = None
    start: Annotated[
        Literal["latest", "existing"],
        Field(description="latest: what comes; existing: the newest version that is there at the first look counts."),
    ] = "latest"
    every: Annotated[Duration, Field(description="Time between two looks.")] = "15s"
    webhook: Annotated[
        bool, Field(description="A webhook of MLflow that edgewright webhook mlflow has taken makes it look at once.")
    ] = False


#: Models by the name in ``triggers:``.
TRIGGERS: dict[str, type[Trigger]] = {"kafka": KafkaTrigger, "objects": ObjectsTrigger, "registry": RegistryTrigger}


def source_id(kind: str, config: Mapping[str, Any]) -> str:
    """Return the name under which a source's batches are kept: it follows from what is listened to.

    Args:
        kind: ``kafka``, ``objects`` or ``registry``.
        config: The trigger as in the document.
    """
    named = {"kafka": "topic", "objects": "uri", "registry": "model"}[kind]
    value = config.get(named, "*")
    text = "-".join(value) if isinstance(value, list) else str(value)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:80]
    return f"{kind}-{slug or 'any'}"


def read_triggers(value: Any, faults: Faults, folder: FilePath | None = None) -> tuple[dict[str, Any], ...]:
    """Return the event sources, after noting what is wrong with them.

    Args:
        value: What the document says.
        faults: Where faults are noted.
        folder: The pipeline's folder, where a schema must be.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        faults.add(("triggers",), "must be a list", allowed="[{kafka: {topic: NAME}}]", code="type")
        return ()
    seen: dict[str, int] = {}
    for index, entry in enumerate(value):
        place = ("triggers", index)
        if not isinstance(entry, dict) or len(entry) != 1:
            faults.add(place, "a trigger is one event source", allowed=f"one of {listing(TRIGGERS)}", code="type")
            continue
        ((kind, config),) = entry.items()
        if kind not in TRIGGERS:
            faults.unknown_key((*place, kind), TRIGGERS, "event source")
            continue
        before = len(faults.found)
        check_model(TRIGGERS[kind], config, (*place, kind), faults)
        if folder is not None and len(faults.found) == before and isinstance(config.get("schema"), str):
            EntryPoints(folder, faults).check(config["schema"], (*place, kind, "schema"))
        if len(faults.found) == before and (first := seen.setdefault(source_id(kind, config), index)) != index:
            faults.add(
                place,
                f"listens to the same as triggers[{first}]",
                allowed="join them, or listen to something else",
                code="value",
            )
    return tuple(entry for entry in value if isinstance(entry, dict))
