"""A release folder as the service sees it: what it must hold, and that its bytes are those that were published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgewright.artifacts.digest import sha256_bytes
from edgewright.errors import DamagedArtifact, DeployRejected

NUMERIC = ("integer", "number", "boolean")
MAX_MODEL_BYTES = 512 << 20

_T = TypeVar("_T")


class Feature(msgspec.Struct, frozen=True):
    """A column that the model takes, with the range of its values in the part ``train``."""

    name: str
    type: str = "number"
    minimum: float | None = None
    maximum: float | None = None
    missing: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the model takes it as a 32-bit float."""
        return self.type in NUMERIC


class Variant(msgspec.Struct, frozen=True):
    """``variants/<target>/model.json``: the keys that serving needs."""

    format: str
    target: str
    file: str
    sha256: str
    problem: str
    label: str
    features: list[Feature]
    classes: list[Any] = []
    metrics: dict[str, Any] = {}


class Manifest(msgspec.Struct, frozen=True):
    """``manifest.json``: the keys that serving needs."""

    format: str
    name: str
    digest: str
    variants: Any
    default_variant: str | None = None
    lineage: Any = None


class Golden(msgspec.Struct, frozen=True):
    """``golden.json``: rows and the scores that each variant gave for them when it was published."""

    inputs: list[dict[str, Any]]
    outputs: dict[str, list[list[float]]]


@dataclass(frozen=True)
class Release:
    """A release whose chosen variant was read and verified.

    Attributes:
        folder: Where it is.
        manifest: What was published.
        variant: The chosen variant's description.
        model: The bytes of its ONNX file.
        golden: The self-test.
    """

    folder: Path
    manifest: Manifest
    variant: Variant
    model: bytes
    golden: Golden


def variant_entries(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the manifest's variants by target, whether they are written as a mapping or as a list."""
    if isinstance(manifest.variants, dict):
        return {name: entry if isinstance(entry, dict) else {} for name, entry in manifest.variants.items()}
    entries: dict[str, dict[str, Any]] = {}
    for entry in manifest.variants or []:
        if isinstance(entry, dict):
            entries[str(entry.get("target") or entry.get("name"))] = entry
        else:
            entries[str(entry)] = {}
    return entries


def read_manifest(folder: Path) -> Manifest:
    """Return a release folder's manifest.

    Raises:
        DamagedArtifact: there is none, it cannot be read, or it is of a format that this service does not know.
    """
    manifest = _read(folder / "manifest.json", Manifest)
    if manifest.format != "edgewright.release/1":
        raise DamagedArtifact(f"unknown format of release: {manifest.format}", where=str(folder))
    return manifest


def read_release(folder: Path, variant: str | None = None) -> Release:
    """Read a release folder and verify the chosen variant.

    Args:
        folder: The release.
        variant: Which variant; ``None`` takes the release's default.

    Raises:
        DeployRejected: the variant is not there, or is of a kind that this service does not load.
        DamagedArtifact: files are missing, unreadable, or do not match their sha256.
    """
    manifest = read_manifest(folder)
    entries = variant_entries(manifest)
    chosen = variant or manifest.default_variant
    if chosen is None or chosen not in entries:
        raise DeployRejected(
            f"the release has no variant {chosen}" if chosen else "the release names no default variant",
            hint=f"it has: {', '.join(entries) or 'none'}",
        )
    place = _inside(folder, "variants", chosen)
    description = _read(place / "model.json", Variant)
    _refuse_pickle(chosen, description, entries)
    file = _inside(place, description.file)
    if file.is_file() and file.stat().st_size > MAX_MODEL_BYTES:
        raise DeployRejected(
            f"the model file has {file.stat().st_size:,} bytes, more than the {MAX_MODEL_BYTES:,} that are allowed"
        )
    data = _bytes(file)
    expected = {description.sha256, str(entries[chosen].get("sha256") or description.sha256)}
    if expected != {sha256_bytes(data)}:
        raise DamagedArtifact(f"variants/{chosen}/{description.file} does not match its sha256", where=str(folder))
    return Release(folder, manifest, description, data, _read(folder / "golden.json", Golden))


def _refuse_pickle(chosen: str, description: Variant, entries: dict[str, dict[str, Any]]) -> None:
    if description.format != "onnx":
        others = [name for name in entries if name != chosen]
        raise DeployRejected(
            f"the variant {chosen} is a {description.format}: this service loads ONNX only, "
            "because loading a pickle runs whatever code is in it",
            hint=f"deploy another variant: {', '.join(others)}" if others else "publish an ONNX variant (quantize)",
        )


def _inside(folder: Path, *parts: str) -> Path:
    path = folder.joinpath(*parts)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DeployRejected(f"{'/'.join(parts)} leads out of the release's folder")
    return path


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedArtifact(f"{path.name} cannot be read: {error.strerror or error}", where=str(path)) from error


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(_bytes(path), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedArtifact(f"{path.name} cannot be read: {error}", where=str(path)) from error
