"""Fetch a release from where MLflow keeps it: only the files that its manifest names, each compared with its sha256."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgewright.artifacts import sha256_file
from edgewright.artifacts.names import check_name
from edgewright.errors import DamagedArtifact, StoreError
from edgewright.registry.release import FORMAT, MANIFEST, TARGET, content_digest

_MANIFEST_LIMIT = 16 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")

#: Fetches one file: path in the release, folder below which it is put; returns where it is.
FetchFile = Callable[[str, Path], Path]


def download_release(
    fetch: FetchFile, dest: Path, *, digest: str, where: str, added: Mapping[str, str] | None = None
) -> Path:
    """Put a release into ``dest/release``, whole and verified or not at all.

    Args:
        fetch: Fetches one file.
        dest: An existing or new folder; a release that is in it is replaced.
        digest: What the registry says that the release's digest is; empty where it says nothing.
        where: The version, for messages.
        added: Variants that were added to it later: target -> sha256 of the addition's document.

    Raises:
        DamagedArtifact: a file is missing or differs, or the manifest cannot be trusted.
        StoreError: the folder cannot be written.
    """
    temporary = dest / f".tmp-{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        manifest = _manifest(_one(fetch, MANIFEST, temporary, where), digest, where)
        for name, entry in manifest["files"].items():
            _verified(fetch, check_name(name, where), entry["sha256"], temporary, where)
        if added:
            _fetch_additions(fetch, added, temporary, manifest, where)
        target = dest / "release"
        if target.exists():
            target.rename(temporary.with_name(f"{temporary.name}-old"))
        temporary.rename(target)
    except OSError as error:
        hint = "the disk is full: free some space" if error.errno == 28 else None
        raise StoreError(
            f"the release cannot be kept: {error.strerror or error}", where=str(dest), hint=hint
        ) from error
    finally:
        for left in (temporary, temporary.with_name(f"{temporary.name}-old")):
            shutil.rmtree(left, ignore_errors=True)
    return target


def _fetch_additions(
    fetch: FetchFile, added: Mapping[str, str], folder: Path, manifest: Mapping[str, Any], where: str
) -> None:
    from edgewright.registry.additions import DOCUMENT, merge, place_of, read_addition

    found = {}
    there = {variant["target"] for variant in manifest["variants"]}
    for target, sha256 in added.items():
        if target in there or not TARGET.fullmatch(target) or not _SHA256.fullmatch(sha256):
            raise DamagedArtifact(f"the tag of the added variant {target} makes no sense", where=where)
        place = place_of(target, sha256)
        path = _one(fetch, f"{place}/{DOCUMENT}", folder, where)
        document = read_addition(path, target, sha256, manifest["digest"], where)
        for name, expected in document["variant"]["files"].items():
            _verified(fetch, f"{place}/{name}", expected, folder, where)
        found[target] = (folder / place, document)
    merge(folder, found)


def _verified(fetch: FetchFile, name: str, sha256: str, folder: Path, where: str) -> None:
    if sha256_file(_one(fetch, name, folder, where)) != sha256:
        raise DamagedArtifact(f"{name} does not match its sha256", where=where)


def _one(fetch: FetchFile, name: str, folder: Path, where: str) -> Path:
    """Fetch one file to its place; whatever the client wrote elsewhere is not looked at."""
    path = fetch(name, folder)
    if path != folder / name or path.is_symlink() or not path.is_file():
        raise DamagedArtifact(f"{name} is missing in the registry", where=where)
    return path


def _manifest(path: Path, digest: str, where: str) -> dict[str, Any]:
    if path.stat().st_size > _MANIFEST_LIMIT:
        raise DamagedArtifact("the manifest is too large to be one", where=where)
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedArtifact(f"the manifest cannot be read: {error}", where=where) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DamagedArtifact("not a release of ours: its manifest has another format", where=where)
    _check_files(manifest.get("files"), where)
    try:
        own = content_digest(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedArtifact(f"the manifest cannot be read: {error!r}", where=where) from error
    if manifest.get("digest") != own or (digest and digest != own):
        raise DamagedArtifact("the manifest does not match the digest that was registered", where=where)
    for variant in manifest["variants"]:
        if variant.get("added"):
            raise DamagedArtifact("the manifest names a variant that its digest does not cover", where=where)
        for name, sha256 in variant["files"].items():
            if manifest["files"].get(f"variants/{variant['target']}/{name}", {}).get("sha256") != sha256:
                raise DamagedArtifact(f"the manifest contradicts itself about {variant['target']}/{name}", where=where)
    return manifest


def _check_files(files: Any, where: str) -> None:
    if not isinstance(files, dict) or not files:
        raise DamagedArtifact("the manifest names no files", where=where)
    for name, entry in files.items():
        check_name(name, where)
        if not isinstance(entry, dict) or not _SHA256.fullmatch(str(entry.get("sha256", ""))):
            raise DamagedArtifact(f"the manifest has no sha256 of {name}", where=where)
