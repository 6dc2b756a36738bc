"""References to artifacts: what travels in XCom, in requests and in results instead of data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["dataset", "model", "report", "bundle", "code", "batch"]


class ArtifactRef(BaseModel):
    """An immutable folder in the artifact store.

    Attributes:
        kind: What it is.
        uri: Where it is; a folder.
        sha256: Digest over the names and contents of its files.
        size: Bytes of all its files together.
        meta: A few small facts for people and for later steps (rows, format, target); never data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    uri: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = 0
    meta: dict[str, Any] = Field(default_factory=dict)
