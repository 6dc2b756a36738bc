"""How many rows an erasure removed, remembered over a kill: written down before they are removed."""

from __future__ import annotations

from typing import Any

from edgewright.artifacts import ArtifactStore, digest_json
from edgewright.artifacts.erasures import ROOT


class Journal:
    """Counts by unit of one place: a partition of a table, a key of a topic, a file.

    A unit that is done again after a kill finds fewer rows or none, so the greater count holds.

    Args:
        store: Where it is kept.
        subject: The person's pseudonym.
        place: The table or topic.
    """

    def __init__(self, store: ArtifactStore, subject: str, place: str) -> None:
        self._store = store
        self._key = f"{ROOT}/journals/{subject}/{digest_json(place)[:16]}.json"
        document: dict[str, Any] = store.read_json(self._key) or {"place": place, "units": {}}
        self._document = document

    def note(self, unit: str, count: int) -> None:
        """Say what is about to be removed."""
        units = self._document["units"]
        if count > units.get(unit, 0):
            units[unit] = count
            self._store.write_json(self._key, self._document)

    @property
    def units(self) -> dict[str, int]:
        """What was removed by unit, over all attempts."""
        return dict(self._document["units"])

    @property
    def total(self) -> int:
        """All that was removed, over all attempts."""
        return sum(self._document["units"].values())
