"""Make a bundle: one variant of a release in one file, whose bytes follow from the release alone.

``manifest.json`` says what the model takes and gives, what made it, how good it is and where it comes from, and names
every other file with its sha256. The archive is a plain tar: sorted, without times, owners or compression.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright.artifacts.digest import describe_tree, list_files
from edgewright.errors import ConfigError, StoreError

FORMAT = "edgewright.bundle/1"
MANIFEST = "manifest.json"
GOLDEN = "golden.json"
CARD = "README.md"
MODEL = "model"
SIGNATURE = "model.sig"
_NUMERIC = ("integer", "number", "boolean")


def build_bundle(release: Path, folder: Path, *, target: str, version: str) -> dict[str, Any]:
    """Fill an empty folder with a bundle, and return its manifest.

    Args:
        release: A verified release, as the registry's download gives it.
        folder: Empty.
        target: Which variant.
        version: The registered version.

    Raises:
        ConfigError: the release has no such variant, or it is a pickle, which is never sent to a node.
    """
    said = json.loads((release / MANIFEST).read_text(encoding="utf-8"))
    entry = _variant(said, target)
    source = release / "variants" / target
    for name in sorted(entry["files"]):
        (folder / MODEL / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / MODEL / name)
    document = json.loads((source / "model.json").read_text(encoding="utf-8"))
    golden = json.loads((release / GOLDEN).read_text(encoding="utf-8"))
    outputs = golden["outputs"].get(target)
    if outputs:
        _write_json(folder / GOLDEN, {"inputs": golden["inputs"], "outputs": outputs, "source": golden["source"]})
    shutil.copyfile(release / CARD, folder / CARD)
    manifest = _manifest(said, entry, document, version=version)
    manifest["files"] = describe_tree(folder)
    _write_json(folder / MANIFEST, manifest)
    return manifest


def _variant(release: Mapping[str, Any], target: str) -> dict[str, Any]:
    variants = {str(entry["target"]): entry for entry in release["variants"]}
    fit = sorted(name for name, entry in variants.items() if entry["format"] != "pickle")
    if target not in variants:
        raise ConfigError(
            f"the release has no variant {target}", where="target", hint=f"it has: {', '.join(fit) or 'none that fits'}"
        )
    if target not in fit:
        raise ConfigError(
            f"the variant {target} is a pickle, which no node may load", where="target",
            hint=f"take one of: {', '.join(fit)}" if fit else "add a quantize task to the pipeline",
        )  # fmt: skip
    found: dict[str, Any] = variants[target]
    return found


def _manifest(
    release: Mapping[str, Any], entry: Mapping[str, Any], document: Mapping[str, Any], *, version: str
) -> dict[str, Any]:
    details = dict(document.get("details", {}))
    return {
        "format": FORMAT,
        "name": release["name"],
        "version": version,
        "release": release["digest"],
        "description": release["description"],
        "target": entry["target"],
        "model": {"format": entry["format"], "file": f"{MODEL}/{document['file']}", "sha256": document["sha256"]},
        "problem": release["problem"],
        "label": release["label"],
        "classes": release["classes"],
        "inputs": _inputs(document["features"]),
        "outputs": _outputs(release),
        "preprocessing": _preprocessing(document, details),
        "toolchain": {"libraries": document.get("libraries", {}), "details": details},
        "metrics": document.get("metrics", {}),
        "verified": document.get("verified", {}),
        "gates": release["evaluation"]["gates"],
        "lineage": release["lineage"],
    }


def _inputs(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the model's tensors with their columns in order, and the ranges that were seen in training."""
    if all(feature["type"] in _NUMERIC for feature in features):
        return [{"name": "X", "type": "float32", "shape": ["rows", len(features)], "columns": features}]
    return [
        {
            "name": feature["name"],
            "type": "float32" if feature["type"] in _NUMERIC else "string",
            "shape": ["rows", 1],
            "columns": [feature],
        }
        for feature in features
    ]


def _outputs(release: Mapping[str, Any]) -> list[dict[str, Any]]:
    if release["problem"] == "classification":
        count = len(release["classes"])
        return [
            {"name": "label", "type": "int64", "shape": ["rows"], "range": [0, count - 1]},
            {"name": "probabilities", "type": "float32", "shape": ["rows", count], "range": [0.0, 1.0]},
        ]
    return [{"name": "prediction", "type": "float32", "shape": ["rows", 1]}]


def _preprocessing(document: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Say what stands around the compiled arithmetic; everything else is inside the model."""
    parts = details.get("parts")
    if not parts or document["format"] == "onnx":
        return {"missing": "NaN", "inside": True}
    return {
        "missing": "NaN",
        "inside": False,
        "before": f"{MODEL}/before.onnx",
        "after": f"{MODEL}/after.onnx",
        "arithmetic": parts,
    }


def _write_json(path: Path, document: Any) -> None:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_archive(folder: Path, path: Path) -> None:
    """Write a folder as one tar file; the same folder gives the same bytes. The file is there whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(temporary, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name in list_files(folder):
                info = tarfile.TarInfo(name)
                data = (folder / name).read_bytes()
                info.size, info.mode = len(data), 0o644
                archive.addfile(info, io.BytesIO(data))
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"the bundle cannot be written: {error.strerror or error}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
