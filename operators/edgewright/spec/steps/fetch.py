"""``fetch``: take a registered version out of the registry, so that a pipeline can go on from it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgewright.spec.steps.base import StepConfig
from edgewright.spec.steps.score import REGISTERED


class FetchConfig(StepConfig):
    """Hands out a version's float model and the dataset that it was made from."""

    registered: Annotated[
        str | None,
        Field(
            pattern=REGISTERED,
            description="NAME (its champion), NAME@ALIAS or NAME/VERSION. Default: the version that started the run.",
            examples=["bracelet/3"],
        ),
    ] = None
    tag: Annotated[
        str, Field(min_length=1, description="Tag of the version that lists targets, separated by commas.")
    ] = "prepare"
    targets: Annotated[
        list[str] | None, Field(description="Targets in place of those that the tag lists.", examples=[["onnx-int8"]])
    ] = None
