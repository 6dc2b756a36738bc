"""``to: {edge: ...}``: on which nodes of a Kubernetes or KubeEdge cluster a version answers, and how it gets there."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgewright.spec.kubernetes_fields import Inside, ObjectName, Quantity, Secret, Toleration, Wait
from edgewright.spec.steps.base import Fraction, StepConfig

_LABEL = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")


def _check_selector(value: Any) -> Any:
    for key, label in value.items() if isinstance(value, dict) else ():
        if not _LABEL.match(str(key)):
            raise ValueError(f"{key!r} is no label of a node")
        if isinstance(label, str) and "{{" not in label and not _VALUE.match(label):
            raise ValueError(
                f"{label!r} is no value of a label (letters, digits, dashes, dots, underscores; 63 at most)"
            )
    return value


def _check_share(value: Any) -> Any:
    if isinstance(value, bool) or not re.match(r"^([1-9][0-9]*|[1-9][0-9]?%|100%)$", str(value)):
        raise ValueError("must be a number of nodes from 1 on, or a share such as 10%")
    return value


class EdgePlace(StepConfig):
    """Nodes of a cluster, and the program that runs there."""

    selector: Annotated[
        dict[str, str], BeforeValidator(_check_selector), Field(min_length=1, description="Labels of the nodes.")
    ]
    runtime: Annotated[str, Field(min_length=1, description="Image that has edgewright edge run.")]
    source: Annotated[
        str,
        Field(pattern=r"^(/[^\s]*|[a-z0-9-]+://[^\s@]*)$",
              description="Where the nodes get the bundle: what publish calls bundle.to, as the nodes reach it."),
    ]  # fmt: skip
    key: Annotated[
        str | None, Field(description="Public key (PEM) that must have signed the bundle: {$f: key.pub}.")
    ] = None
    values: Annotated[
        dict[str, Any], Field(description="The site's own configuration; nodes show it and send it with each report.")
    ] = {}
    name: Annotated[
        ObjectName | None, Field(description="Name of the DaemonSet. Default: from the model's name and the variant.")
    ] = None
    replicas: Annotated[
        int | None, Field(ge=1, description="A Deployment with so many pods. Default: a DaemonSet, one pod a node.")
    ] = None
    max_unavailable: Annotated[
        int | str, BeforeValidator(_check_share), Field(description="How many nodes may change at a time: 2, or 10%.")
    ] = 1
    require: Annotated[
        Fraction, Field(gt=0, description="Share of the nodes that are up which must answer with the version.")
    ] = 1.0
    settle: Annotated[Wait, Field(description="How long a node must have answered before the next one follows.")] = 5
    port: Annotated[int, Field(ge=1, le=65535, description="Port of the node (token: of the pod).")] = 8600
    token: Annotated[
        ObjectName | None,
        Field(description="Secret whose key token callers must send: the pod then answers on its own address. "
              "Default: only programs of the node itself can ask, at 127.0.0.1."),
    ] = None  # fmt: skip
    home: Annotated[
        Inside | None,
        Field(description="Folder of the node that keeps bundles over a restart without a network."),
    ] = None
    reports: Annotated[
        str | None,
        Field(
            pattern=r"^(kafka|mqtt)://[^\s@]+$", description="Where nodes report: kafka://HOST:PORT/TOPIC, mqtt://..."
        ),
    ] = None
    poll: Annotated[float, Field(gt=0, description="Seconds between two looks at the source.")] = 60.0
    login: Annotated[
        ObjectName | None, Field(description="Secret of the type dockerconfigjson, for an oci:// source.")
    ] = None
    env: Annotated[dict[str, str], Field(description="Environment variables; no secrets.")] = {}
    secrets: Annotated[dict[str, Secret], Field(description="Environment variables that are kept in Secrets.")] = {}
    resources: Annotated[dict[str, Quantity], Field(description="cpu, memory, and any vendor's name.")] = {}
    tolerations: Annotated[
        list[Toleration], Field(description="Beside the taint of KubeEdge's nodes, which is always tolerated.")
    ] = []
    pull: Annotated[Literal["always", "missing", "never"], Field(description="When the image is pulled.")] = "missing"
    pull_secrets: Annotated[list[ObjectName], Field(description="Secrets for the image's registry.")] = []
    namespace: Annotated[ObjectName | None, Field(description="Default: the connection's.")] = None
    connection: Annotated[str, Field(description="Airflow connection of the type kubernetes.")] = "kubernetes_default"

    @model_validator(mode="after")
    def _fits_together(self) -> EdgePlace:
        if self.replicas is not None and self.home is not None:
            raise ValueError("home is for one pod a node: not with replicas")
        if self.login is not None and not self.source.startswith("oci://"):
            raise ValueError("login is for source: oci://...")
        for name, secret in self.secrets.items():
            if secret.secret is None or secret.env is not None:
                raise ValueError(f"secrets.{name} needs {{secret: NAME, key: KEY}}")
        return self
