"""``spark:`` of ``transform``: what runs a function or a query of yours on Apache Spark."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from edgewright.spec.steps.base import StepConfig

_LOCAL = re.compile(r"^local(\[(\d+|\*)\])?$")
_CLUSTER = re.compile(r"^spark://[^\s:/,]+:\d+(,[^\s:/,]+:\d+)*$")
_SECRET = re.compile(r"(?i)secret|password|passphrase|token|credential(?!s\.provider)|access\.key|jaas\.config")
#: Settings that have a key of their own, or that the step itself needs.
_OWN = {
    "spark.master": "master", "spark.jars.packages": "packages", "spark.driver.memory": "memory",
}  # fmt: skip


def _check_master(value: Any) -> Any:
    if isinstance(value, str) and not _LOCAL.match(value) and not _CLUSTER.match(value):
        raise ValueError("must be local[*], local[4], or a standalone cluster such as spark://HOST:7077")
    return value


def _check_conf(conf: Any) -> Any:
    for name in conf if isinstance(conf, dict) else ():
        if not str(name).startswith("spark."):
            raise ValueError(f"{name}: settings of Spark begin with spark.; one of Hadoop is spark.hadoop.{name}")
        if name in _OWN:
            raise ValueError(f"{name} has a key of its own: {_OWN[name]}")
        if _SECRET.search(str(name)):
            raise ValueError(f"{name}: secrets come from an Airflow connection: connections: [NAME]")
    return conf


class SparkConfig(StepConfig):
    """Where Spark runs and what it is given; ``spark: {}`` is this machine with all of its cores."""

    master: Annotated[
        str,
        BeforeValidator(_check_master),
        Field(description="local[*] (this machine), local[4], or a standalone cluster: spark://HOST:7077."),
    ] = "local[*]"
    memory: Annotated[
        str,
        Field(pattern=r"^[1-9]\d*[mg]$", description="Memory of the driver; on a local master that is all of Spark's."),
    ] = "1g"
    packages: Annotated[
        list[Annotated[str, Field(pattern=r"^[\w.-]+:[\w.-]+:[\w.-]+$", description="GROUP:ARTIFACT:VERSION.")]],
        Field(
            description="Maven coordinates, with all that they depend on; connectors have Spark's own version.",
            examples=[["org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0"]],
        ),
    ] = []
    connections: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]],
        Field(description="Airflow connections for the function; one of the type aws is the login of s3a://."),
    ] = []
    conf: Annotated[
        dict[str, str | bool | int | float],
        BeforeValidator(_check_conf),
        Field(description="Further settings of Spark.", examples=[{"spark.sql.shuffle.partitions": 16}]),
    ] = {}
    folder: Annotated[
        str | None,
        Field(
            pattern=r"^/",
            description="Of a cluster: a folder that this machine and all workers see at the same path. Default: the "
            "task's scratch folder.",
        ),
    ] = None
