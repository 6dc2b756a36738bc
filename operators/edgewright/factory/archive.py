"""Versions of a Dag bundle in the artifact store, so that a worker on another machine can run an older one.

Airflow tells a worker a bundle's name and version and nothing else. Each top-level folder is an artifact of its own,
so an edit of one pipeline stores that pipeline only.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path
from urllib.parse import quote

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.artifacts.store import MANIFEST
from edgewright.errors import StoreError

_ROOT = "."


def _key(bundle: str, version: str) -> str:
    return f"bundles/{quote(bundle, safe='')}/{version}.json"


def is_stored(store: ArtifactStore, bundle: str, version: str) -> bool:
    """Whether a version is in the store."""
    return store.read_json(_key(bundle, version)) is not None


def put_version(store: ArtifactStore, bundle: str, version: str, folder: Path) -> None:
    """Store a version.

    Raises:
        StoreError: it could not be written; the document that names the version is written last.
    """
    parts: dict[str, ArtifactRef] = {}
    meta = {"bundle": bundle}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name != "__pycache__":
            parts[entry.name] = store.put(entry, "bundle", meta)
    with tempfile.TemporaryDirectory(prefix="edgewright-bundle-") as temporary:
        for entry in folder.iterdir():
            if entry.is_file():
                shutil.copyfile(entry, Path(temporary, entry.name))
        parts[_ROOT] = store.put(Path(temporary), "bundle", meta)
    store.write_json(
        _key(bundle, version),
        {"version": 1, "parts": {name: ref.model_dump(mode="json") for name, ref in parts.items()}},
    )


def fetch_version(store: ArtifactStore, bundle: str, version: str, target: Path) -> None:
    """Bring a version to this machine; it appears complete or not at all.

    Raises:
        StoreError: the store does not have it.
        DamagedArtifact: its files do not match their digests.
    """
    document = store.read_json(_key(bundle, version))
    if document is None:
        raise StoreError(
            f"version {version} of the Dag bundle {bundle} is neither on this machine nor in the artifact store",
            where=store.root,
            hint="it was removed; trigger a new run",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
        for name, ref in document["parts"].items():
            folder = store.fetch(ArtifactRef.model_validate(ref))
            shutil.copytree(
                folder, temporary / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, "__pycache__")
            )
        try:
            temporary.rename(target)
        except OSError:
            if not target.exists():  # another task of this machine may have been first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
