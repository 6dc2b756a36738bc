"""``wait``: hold a run until messages, objects or a model version are there, and take exactly those."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgewright.spec.event_fields import Duration, Topic, seconds
from edgewright.spec.steps.base import Start, StepConfig

_WAITED = Field(
    description="Take what there is once the first has waited so long. Default: wait for all, until the timeout."
)


class Marker(StepConfig):
    """A file that says that its folder is complete."""

    marker: Annotated[str, Field(min_length=1, description="Name of the file, such as _SUCCESS.")]


class WaitKafka(StepConfig):
    """Messages of a Kafka topic."""

    topic: Annotated[
        Topic | Annotated[list[Topic], Field(min_length=1)],
        Field(description="Name of the topic, a list of names, or a pattern that begins with ^."),
    ]
    messages: Annotated[int, Field(ge=1, le=1_000_000, description="Messages to wait for.")] = 1
    max_wait: Annotated[Duration | None, _WAITED] = None
    connection: Annotated[str, Field(min_length=1, description="Airflow connection of the type kafka.")] = (
        "kafka_default"
    )
    format: Annotated[Literal["json", "avro", "text", "bytes"], Field(description="What a message holds.")] = "json"
    key: Annotated[
        str | None, Field(min_length=1, description="Field by which messages of a batch are the same; the last counts.")
    ] = None
    start: Annotated[
        Start, Field(description="Where the first wait begins: latest, earliest, or a date.", examples=["earliest"])
    ] = "latest"
    dead_letters: Annotated[Topic | None, Field(description="Topic for messages that cannot be read.")] = None

    @model_validator(mode="after")
    def _fits_together(self) -> WaitKafka:
        topics = [self.topic] if isinstance(self.topic, str) else self.topic
        if self.format in ("text", "bytes") and self.key:
            raise ValueError(f"key needs messages with fields, not format: {self.format}")
        if self.dead_letters is not None and (self.dead_letters.startswith("^") or self.dead_letters in topics):
            raise ValueError("dead_letters must be one topic, and none that is waited for")
        return self


class WaitObjects(StepConfig):
    """Objects of a bucket or folder."""

    uri: Annotated[
        str,
        Field(
            min_length=1,
            pattern="^(s3|file)://",
            description="s3:// or file:// address; the last part is a pattern.",
            examples=["s3://raw/bracelet/*.csv"],
        ),
    ]
    objects: Annotated[int, Field(ge=1, le=10_000, description="Objects to wait for.")] = 1
    max_wait: Annotated[Duration | None, _WAITED] = None
    connection: Annotated[str | None, Field(description="Airflow connection of the type aws.")] = None
    when: Annotated[
        Literal["closed"] | Marker,
        Field(description="closed: as soon as an object is whole; or {marker: NAME}: as soon as its folder has that."),
    ] = "closed"
    order: Annotated[Literal["key", "time"], Field(description="By which the objects are ordered.")] = "key"
    every: Annotated[Duration, Field(description="Time between two looks.")] = "10s"


class WaitRegistry(StepConfig):
    """A version of a registered model, or an alias that moves."""

    model: Annotated[str, Field(min_length=1, description='Name of the model; "*" stands for any letters.')]
    tag: Annotated[dict[str, str], Field(description="Tags that the version must have.")] = {}
    alias: Annotated[str | None, Field(min_length=1, description="Alias that must point to the version.")] = None
    start: Annotated[
        Literal["existing", "latest"],
        Field(description="existing: the newest version that is there at the first look counts; latest: what comes."),
    ] = "existing"
    every: Annotated[Duration, Field(description="Time between two looks.")] = "15s"


class WaitConfig(StepConfig):
    """Waits for messages, objects or a model version; each is taken by one wait."""

    ONE_OF = ("kafka", "objects", "registry")

    kafka: WaitKafka | None = None
    objects: WaitObjects | None = None
    registry: WaitRegistry | None = None
    timeout: Annotated[Duration, Field(description="How long to wait.")] = "1h"
    soft_fail: Annotated[bool, Field(description="Skip the task at its timeout, instead of failing.")] = False

    @model_validator(mode="after")
    def _fits_together(self) -> WaitConfig:
        if len([way for way in self.ONE_OF if getattr(self, way) is not None]) != 1:
            raise ValueError("give exactly one of kafka:, objects: and registry:")
        if not seconds(self.timeout):
            raise ValueError("timeout must be more than nothing")
        return self

    @property
    def kind(self) -> str:
        """Which of its keys says what is waited for."""
        return next(way for way in self.ONE_OF if getattr(self, way) is not None)

    @property
    def connection(self) -> str | None:
        """Name of the connection, where there is one."""
        name: str | None = getattr(getattr(self, self.kind), "connection", None)
        return name

    @property
    def wanted(self) -> tuple[int, str]:
        """How much is waited for, and of what, in words."""
        if self.kafka is not None:
            topic = self.kafka.topic if isinstance(self.kafka.topic, str) else ", ".join(self.kafka.topic)
            return self.kafka.messages, f"messages of {topic}"
        if self.objects is not None:
            return self.objects.objects, f"objects of {self.objects.uri}"
        assert self.registry is not None
        alias = f"@{self.registry.alias}" if self.registry.alias else ""
        tags = f" with {', '.join(f'{k}: {v}' for k, v in self.registry.tag.items())}" if self.registry.tag else ""
        return 1, f"new versions of {self.registry.model}{alias}{tags}"

    def trigger(self) -> dict[str, Any]:
        """Return what is waited for as an entry of ``triggers:`` has it."""
        config = getattr(self, self.kind)
        given: dict[str, Any] = config.model_dump(mode="json", exclude={"messages", "objects", "max_wait", "start"})
        # without a time of its own a batch is cut by its number alone, and the wait ends before this time is over
        limit = {"max_wait": getattr(config, "max_wait", None) or self.timeout}
        if self.kafka is not None:
            given |= {"start": self.kafka.start, "batch": {"max_messages": self.kafka.messages, **limit}}
        elif self.objects is not None:
            given["batch"] = {"min_objects": self.objects.objects, **limit}
        else:
            given["start"] = config.start
        return given
