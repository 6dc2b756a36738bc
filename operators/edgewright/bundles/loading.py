"""From an opened bundle to a model that answers."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgewright.artifacts.digest import sha256_bytes
from edgewright.bundles.pack import MODEL
from edgewright.errors import DamagedArtifact, DeployRejected
from edgewright.serving.features import FeatureTable
from edgewright.serving.graph_safety import check_model
from edgewright.serving.model import ServedModel, check_signature, open_session
from edgewright.serving.release import Variant


def load_model(folder: Path, manifest: Mapping[str, Any]) -> ServedModel:
    """Load the ONNX model of an opened bundle.

    Raises:
        DamagedArtifact: files are missing, or do not match the manifest.
        DeployRejected: it is of another format, not safe, or does not fit its description.
    """
    if manifest["model"]["format"] != "onnx":
        raise DeployRejected(f"there is no runtime for {manifest['model']['format']} here")
    try:
        document = msgspec.json.decode((folder / MODEL / "model.json").read_bytes(), type=Variant)
        data = (folder / manifest["model"]["file"]).read_bytes()
    except (OSError, msgspec.DecodeError) as error:
        raise DamagedArtifact(f"the model cannot be read: {error}", where=str(folder)) from error
    if sha256_bytes(data) != manifest["model"]["sha256"]:
        raise DamagedArtifact("the model does not match its sha256", where=str(folder))
    check_model(data)
    session, table = open_session(data), FeatureTable(document.features)
    check_signature(session, document, table)
    now = time.time()
    return ServedModel(
        name=str(manifest["name"]), version=str(manifest["version"]), variant=str(manifest["target"]),
        digest=str(manifest["release"]), document=document, table=table, session=session,
        since=datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="seconds"), loaded_at=now,
    )  # fmt: skip
