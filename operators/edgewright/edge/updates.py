"""Taking a newer bundle: fetch, prove, keep, load, swap; and going back where it fails.

Versions decide what is newer, as the signed manifest says them; no clock does, so a node whose clock is wrong updates
as any other. A bundle that was refused is not fetched again until its file changes.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.artifacts.digest import sha256_file
from edgewright.bundles import Limits, open_bundle
from edgewright.bundles.loading import load_model
from edgewright.bundles.pack import GOLDEN
from edgewright.edge.shelf import Shelf, Slot
from edgewright.edge.sources import Offer, Source
from edgewright.edge.times import now
from edgewright.errors import ConfigError, DamagedArtifact, DeployRejected, EdgewrightError, NotFound, StoreError
from edgewright.serving.model import ServedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a node wants.

    Attributes:
        target: What it can run.
        name: Registered name of the model; ``None``: the only one that is offered.
        version: This version and no other, also where it is older; ``None``: the newest.
        key: Public key that must have signed; ``None``: whoever.
        limits: How much a bundle may ask for.
    """

    target: str
    name: str | None = None
    version: int | None = None
    key: Path | None = None
    limits: Limits = field(default_factory=Limits)


class Updater:
    """Takes bundles for a node.

    Args:
        shelf: Where they are kept.
        source: Where they come from.
        wanted: Which ones.
    """

    def __init__(self, shelf: Shelf, source: Source, wanted: Wanted) -> None:
        self._shelf, self._source, self._wanted = shelf, source, wanted

    def restore(self) -> ServedModel | None:
        """Load what the node had; the previous one where the current one cannot be loaded any more."""
        while (slot := self._shelf.state.current) is not None:
            try:
                return self._load(slot)
            except EdgewrightError as error:
                log.error("%s version %s cannot be loaded: %s", slot.name, slot.version, error)
                self._shelf.roll_back(f"slot:{slot.slot}", str(error))
        return None

    def update(self) -> ServedModel | None:
        """Take the newest bundle that is newer than what the node has; ``None`` where there is none.

        Raises:
            EdgewrightError: the source does not answer, there is no room, or the bundle was refused. What the node has
                stays as it is.
        """
        offer = self._choose()
        return None if offer is None else self._take(offer)

    def roll_back(self, reason: str) -> ServedModel | None:
        """Go back to the previous bundle; ``None`` where there is none, and then nothing is changed."""
        state = self._shelf.state
        if state.current is None or state.previous is None:
            return None
        model = self._load(state.previous)  # before anything is forgotten
        self._shelf.roll_back(f"slot:{state.current.slot}", reason)
        return model

    def _choose(self) -> Offer | None:
        wanted, current = self._wanted, self._shelf.state.current
        name = wanted.name or (current.name if current else None)
        offers = self._source.offers(wanted.target, name)
        names = sorted({offer.name for offer in offers})
        if len(names) > 1:
            raise ConfigError(f"several models are offered: {', '.join(names)}", hint="choose one: --model NAME")
        if wanted.version is not None:
            offers = [offer for offer in offers if offer.version == wanted.version]
            if not offers and (current is None or current.version != wanted.version):
                raise NotFound(f"version {wanted.version} of {name or 'a model'} for {wanted.target} is not offered")
        offers = [offer for offer in offers if offer.mark not in self._shelf.state.refused]
        if not offers:
            return None
        newest = offers[-1]
        if current is None or newest.version > current.version:
            return newest
        # an older one only where it was asked for by its number
        return newest if wanted.version is not None and newest.version != current.version else None

    def _take(self, offer: Offer) -> ServedModel | None:
        work = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self._shelf.slots))
        try:
            archive = work / "bundle.tar"
            self._source.fetch(offer, archive, self._wanted.limits.total_bytes * 2)
            digest = sha256_file(archive)
            if f"slot:{digest}" in self._shelf.state.refused:
                return None
            slot = self._prove(offer, archive, work / "opened", digest)
            self._shelf.keep(work / "opened", slot)
            model = self._load(slot)
            self._shelf.take(slot)
        except (DamagedArtifact, DeployRejected) as error:
            self._shelf.refuse(offer.mark, str(error))
            raise
        except OSError as error:
            raise StoreError(f"the update cannot be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return model

    def _prove(self, offer: Offer, archive: Path, folder: Path, digest: str) -> Slot:
        """Open a bundle without trusting it, and compare what it says of itself with what was offered."""
        found = open_bundle(archive, folder, public_key=self._wanted.key, limits=self._wanted.limits)
        archive.unlink()
        manifest: dict[str, Any] = found.manifest
        said = (str(manifest["name"]), str(manifest["version"]), str(manifest["target"]))
        if said != (offer.name, str(offer.version), offer.target):
            raise DamagedArtifact(
                f"the bundle is {said[0]} version {said[1]} for {said[2]}, not what its name says", where=offer.key
            )
        if not (folder / GOLDEN).is_file():
            raise DeployRejected("the bundle has no self-test, so nothing shows that it works here")
        return Slot(digest, offer.name, offer.version, offer.target, str(manifest["release"]), found.signed, now())

    def _load(self, slot: Slot) -> ServedModel:
        folder = self._shelf.folder(slot)
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
        except (OSError, ValueError) as error:
            raise DamagedArtifact(f"the bundle cannot be read: {error}", where=str(folder)) from error
        return load_model(folder, manifest)
