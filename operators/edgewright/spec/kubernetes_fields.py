"""Fields of what runs on Kubernetes: in profiles, and where a step deploys to nodes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edgewright.spec.arguments import Invalid, duration
from edgewright.spec.steps.base import StepConfig

_QUANTITY = re.compile(r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?$")
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


def _check_duration(value: Any) -> Any:
    try:
        duration(value)
    except Invalid:
        raise ValueError("must be a duration") from None
    return value


def _check_quantity(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("must be an amount, such as 4, 500m or 16Gi")
    if not _QUANTITY.match(str(value)):
        raise ValueError("must be an amount, such as 4, 500m or 16Gi")
    return value


def _check_inside(value: Any) -> Any:
    if isinstance(value, str) and not value.startswith("/"):
        raise ValueError("must be a path from the root of the container, such as /data")
    return value


Quantity = Annotated[int | float | str, BeforeValidator(_check_quantity), Field(description="Such as 4, 500m or 16Gi.")]
Inside = Annotated[str, BeforeValidator(_check_inside), Field(description="Path in the container.")]
ObjectName = Annotated[str, Field(pattern=_NAME, max_length=253, description="Name of a Kubernetes object.")]
Wait = Annotated[str | int | float, BeforeValidator(_check_duration), Field(description='Seconds, or such as "10m".')]


class Toleration(StepConfig):
    """A taint of nodes that does not keep the pod away."""

    key: Annotated[str | None, Field(description="Key of the taint. Default: every key.")] = None
    operator: Annotated[Literal["Equal", "Exists"], Field(description="Whether the value counts.")] = "Equal"
    value: Annotated[str | None, Field(description="Value of the taint.")] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None, Field(description="Default: every effect.")
    ] = None


class Mount(StepConfig):
    """Files that the container sees at a path: exactly one of the sources."""

    path: Inside
    folder: Annotated[str | None, Field(description="Folder of the machine (Docker's host, the node).")] = None
    claim: Annotated[ObjectName | None, Field(description="Kubernetes: a PersistentVolumeClaim.")] = None
    secret: Annotated[ObjectName | None, Field(description="Kubernetes: a Secret as files.")] = None
    config_map: Annotated[ObjectName | None, Field(description="Kubernetes: a ConfigMap as files.")] = None
    read_only: Annotated[bool, Field(description="Whether it can be written.")] = True


class Secret(StepConfig):
    """Where the value of an environment variable is kept; the value itself stands in no file of ours."""

    secret: Annotated[ObjectName | None, Field(description="Kubernetes: name of the Secret.")] = None
    key: Annotated[str | None, Field(description="Kubernetes: key in it. Default: the variable's name.")] = None
    env: Annotated[str | None, Field(description="Docker: variable of the worker that holds it.")] = None
