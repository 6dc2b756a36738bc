"""Persons who asked to be forgotten, by their pseudonyms, and the artifacts that went with them.

Layout below the store's root::

    erasures/subjects/<pseudonym>.json   whom later runs leave out
    erasures/artifacts/<sha256>.json     an artifact whose bytes are gone, how many rows, and what stands in its place

The register outlives the data: without it the next run would read the same source and bring the person back. It holds
pseudonyms only. What is marked as erased is not stored again, whoever was at work on it meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgewright.errors import StoreError

if TYPE_CHECKING:
    from edgewright.artifacts.store import ArtifactStore

ROOT = "erasures"
SUBJECTS = f"{ROOT}/subjects"
ARTIFACTS = f"{ROOT}/artifacts"
#: Seconds after which somebody who works for long looks again.
_KNOWN_FOR = 30.0


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


class Register:
    """Who was erased, for somebody who works for long: read again every half minute.

    Args:
        store: Where the register is.
        say: Told that it cannot be read just now; what was known holds on.

    Raises:
        StoreError: it cannot be read the first time.
    """

    def __init__(self, store: ArtifactStore, say: Callable[[str], None] = lambda line: None) -> None:
        self._store, self._say = store, say
        self._known, self._read = subjects(store), time.monotonic()

    def __call__(self) -> frozenset[str]:
        """Return the pseudonyms."""
        if time.monotonic() - self._read > _KNOWN_FOR:
            self._read = time.monotonic()
            try:
                self._known = subjects(self._store)
            except StoreError as error:
                self._say(f"who was erased since cannot be read: {error.message}")
        return self._known
