"""Persons who asked to be forgotten, by their pseudonyms, and the artifacts that went with them.

Layout below the store's root::

    erasures/subjects/<pseudonym>.json   whom later runs leave out
    erasures/artifacts/<sha256>.json     an artifact whose bytes are gone, how many rows, and what stands in its place

The register outlives the data: without it the next run would read the same source and bring the person back. It holds
pseudonyms only. What is marked as erased is not stored again, whoever was at work on it meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright.artifacts.store import ArtifactStore

ROOT = "erasures"
SUBJECTS = f"{ROOT}/subjects"
ARTIFACTS = f"{ROOT}/artifacts"


def subjects(store: ArtifactStore) -> frozenset[str]:
    """Return the pseudonyms of everybody who was erased."""
    keys = store.list_keys(SUBJECTS)
    return frozenset(key.rpartition("/")[2].removesuffix(".json") for key in keys)


def remember(store: ArtifactStore, subject: str, time: str) -> str:
    """Enter somebody; who is there already stays as entered. Return the ISO time of the first request."""
    key = f"{SUBJECTS}/{subject}.json"
    store.create_json(key, {"subject": subject, "requested": time})
    return str(store.read_json(key)["requested"])  # type: ignore[index]


def mark_artifact(store: ArtifactStore, digest: str, mark: dict[str, Any]) -> None:
    """Say that an artifact is erased, before its bytes go."""
    store.write_json(f"{ARTIFACTS}/{digest}.json", mark)


def mark_of(store: ArtifactStore, digest: str) -> dict[str, Any] | None:
    """Return what is said of an erased artifact; ``None`` where it is not erased."""
    found: dict[str, Any] | None = store.read_json(f"{ARTIFACTS}/{digest}.json")
    return found


def marks(store: ArtifactStore) -> dict[str, dict[str, Any]]:
    """Return all marks by digest."""
    keys = store.list_keys(ARTIFACTS)
    return {key.rpartition("/")[2].removesuffix(".json"): store.read_json(key) or {} for key in keys}
