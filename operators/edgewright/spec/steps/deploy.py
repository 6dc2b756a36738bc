"""``deploy``: make a published version answer requests, or leave everything as it was."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgewright.spec.steps.base import Bundle, StepConfig


class Endpoint(StepConfig):
    """Where to: a name that the installation knows."""

    service: Annotated[str, Field(min_length=1, description="Name of a prediction service of this installation.")]


class DeployConfig(StepConfig):
    """Loads a release into a prediction service; a failed self-test keeps the model that was served before."""

    release: Bundle
    to: Endpoint
    variant: Annotated[
        str | None, Field(description="Which variant is served. Default: the last one that was published.")
    ] = None
    timeout: Annotated[
        float, Field(gt=0, description="Seconds that the service may take to load and test the model.")
    ] = 60.0
