"""``publish``: put all variants of a model into the registry as one version, once, and move the alias last."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from edgewright.artifacts.refs import ArtifactRef
from edgewright.spec.steps.base import Accepts, Model, StepConfig

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class BundleConfig(StepConfig):
    """Writes a bundle of each variant to where nodes look for it."""

    to: Annotated[
        str,
        Field(
            pattern=r"^(/[^\s]*|[a-z0-9-]+://[^\s@]*)$",
            description="A folder's absolute path, s3://BUCKET/PREFIX, oci://HOST/REPOSITORY or oci-layout:///FOLDER: "
            "the source of edgewright edge run.",
        ),
    ]
    connection: Annotated[
        str | None,
        Field(description="Airflow connection with the login of an oci:// registry. Default: that of docker login."),
    ] = None
    targets: Annotated[list[str], Field(description="Which variants. Default: all that a node may load.")] = []
    sign: Annotated[
        bool, Field(description="Sign them with the key whose path is in EDGEWRIGHT_SIGNING_KEY where the task runs.")
    ] = False

    @model_validator(mode="after")
    def _connection_is_of_a_registry(self) -> BundleConfig:
        if self.connection is not None and not self.to.startswith("oci://"):
            raise ValueError("connection is for to: oci://...")
        return self


class AnnounceConfig(StepConfig):
    """Sends a message to a topic of Kafka when the registry has the version."""

    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="Name of the topic.")]
    connection: Annotated[str, Field(min_length=1, description="Airflow connection of the type kafka.")] = (
        "kafka_default"
    )


class PublishConfig(StepConfig):
    """Registers the given models as the variants of one version, or adds them to a version that is there."""

    ONE_OF = ("name", "release")

    models: Annotated[list[Model], Field(min_length=1)]
    name: Annotated[Name | None, Field(description="Name of the registered model.")] = None
    release: Annotated[
        ArtifactRef | None,
        Accepts(("bundle",)),
        Field(description="The registered version that the models are added to: {$x: fetch task}."),
    ] = None
    alias: Annotated[
        Name | None, Field(description="Alias that moves to the new version; the old one gets the alias previous.")
    ] = "champion"
    description: str = ""
    tags: dict[str, str] = {}
    bundle: Annotated[BundleConfig | None, Field(description="Offer the variants to nodes as bundles.")] = None

    announce: Annotated[
        AnnounceConfig | None, Field(description="Say so on a topic of Kafka, at least once for each version.")
    ] = None

    @model_validator(mode="after")
    def _fits_together(self) -> PublishConfig:
        if (self.name is None) == (self.release is None):
            raise ValueError("give name (a version of its own) or release (the version to add to)")
        unheeded = sorted({"alias", "description", "tags"} & self.model_fields_set)
        if self.release is not None and unheeded:
            raise ValueError(f"{', '.join(unheeded)} cannot be set with release: the version has them already")
        return self

    @property
    def model_name(self) -> str:
        """Name of the registered model."""
        return self.name or str(self.release.meta.get("name") if self.release else "")
