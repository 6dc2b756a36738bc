"""``publish``: put all variants of a model into the registry as one version, once, and move the alias last."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgewright.spec.steps.base import Model, StepConfig

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class PublishConfig(StepConfig):
    """Registers the given models as the variants of one version."""

    models: Annotated[list[Model], Field(min_length=1)]
    name: Annotated[Name, Field(description="Name of the registered model.")]
    alias: Annotated[
        Name | None, Field(description="Alias that moves to the new version; the old one gets the alias previous.")
    ] = "champion"
    description: str = ""
    tags: dict[str, str] = {}
