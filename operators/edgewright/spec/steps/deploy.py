"""``deploy``: make a published version answer requests, or leave everything as it was."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from edgewright.spec.steps.base import Bundle, StepConfig
from edgewright.spec.steps.edge_place import EdgePlace


class Endpoint(StepConfig):
    """Where to: a prediction service by the name that the installation knows, or nodes of a cluster."""

    service: Annotated[
        str | None, Field(min_length=1, description="Name of a prediction service of this installation.")
    ] = None
    edge: Annotated[EdgePlace | None, Field(description="Labelled nodes of a Kubernetes or KubeEdge cluster.")] = None

    @model_validator(mode="after")
    def _is_one_place(self) -> Endpoint:
        if (self.service is None) == (self.edge is None):
            raise ValueError("give service (a prediction service) or edge (nodes of a cluster)")
        return self


class DeployConfig(StepConfig):
    """Makes a service or nodes answer with a release; a failed self-test keeps the model that answered before."""

    release: Bundle
    to: Endpoint
    variant: Annotated[
        str | None, Field(description="Which variant is served. Default: the last one that was published.")
    ] = None
    timeout: Annotated[
        float | None,
        Field(gt=0, description="Seconds that a service may take to load and test the model (60), or all nodes (600)."),
    ] = None
