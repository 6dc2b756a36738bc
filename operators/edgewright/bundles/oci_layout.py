"""An OCI image layout: artifacts in a folder, for nodes without a network, such as ``oci-layout:///media/usb/bundles``.

Tools such as oras, skopeo and crane read and write the same folder. Blobs are written under another name and renamed,
``index.json`` is replaced in one step, so a reader sees a tag with all that it needs or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgewright.artifacts.digest import sha256_bytes
from edgewright.bundles.oci import ARTIFACT, IMAGE_MANIFEST, LARGEST_MANIFEST
from edgewright.errors import DamagedArtifact, NotFound, StoreError, Unavailable

_REF = "org.opencontainers.image.ref.name"


class Layout:
    """One layout.

    Args:
        folder: Where it is; made by the first push.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tags(self) -> list[str]:
        """Return all tags."""
        if not (self.folder / "oci-layout").is_file():
            raise Unavailable(f"there is no OCI image layout: {self.folder}")
        return sorted(self._index())

    def digest(self, tag: str) -> str | None:
        """Return the digest of a tag's manifest."""
        found = self._index().get(tag)
        return None if found is None else str(found["digest"])

    def manifest(self, tag: str) -> bytes:
        """Return a tag's manifest, compared with its digest."""
        digest = self.digest(tag)
        if digest is None:
            raise NotFound(f"there is no artifact {tag}", where=str(self.folder))
        with self.blob(digest) as read:
            data = read(LARGEST_MANIFEST)
        if f"sha256:{sha256_bytes(data)}" != digest:
            raise DamagedArtifact("the artifact's manifest does not match its digest", where=tag)
        return data

    @contextlib.contextmanager
    def blob(self, digest: str) -> Iterator[Callable[[int], bytes]]:
        """Open a blob."""
        try:
            file = self._blob(digest).open("rb")
        except OSError as error:
            raise Unavailable(f"{digest} cannot be read: {error.strerror or error}", where=str(self.folder)) from error
        with file:
            yield file.read

    def push(self, tag: str, manifest: bytes, blobs: dict[str, Path | bytes]) -> None:
        """Put blobs, then the manifest, then the tag."""
        digest = f"sha256:{sha256_bytes(manifest)}"
        try:
            for name, blob in {**blobs, digest: manifest}.items():
                self._write(self._blob(name), blob)
            self._write(self.folder / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            with (self.folder / ".index.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # two publishers would lose one of their tags
                index = self._index()
                index[tag] = {
                    "mediaType": IMAGE_MANIFEST, "artifactType": ARTIFACT, "digest": digest, "size": len(manifest),
                    "annotations": {_REF: tag},
                }  # fmt: skip
                entries = [index[name] for name in sorted(index)]
                media = "application/vnd.oci.image.index.v1+json"
                document = {"schemaVersion": 2, "mediaType": media, "manifests": entries}
                self._write(self.folder / "index.json", json.dumps(document, indent=1).encode(), replace=True)
        except OSError as error:
            raise StoreError(f"the layout cannot be written: {error.strerror or error}",
                             where=str(self.folder)) from error  # fmt: skip

    def _blob(self, digest: str) -> Path:
        algorithm, _, hexadecimal = digest.partition(":")
        if algorithm != "sha256" or len(hexadecimal) != 64 or not hexadecimal.isalnum():
            raise DamagedArtifact(f"not a digest: {digest}", where=str(self.folder))
        return self.folder / "blobs" / algorithm / hexadecimal

    @staticmethod
    def _write(path: Path, content: Path | bytes, *, replace: bool = False) -> None:
        if path.exists() and not replace:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
        try:
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                shutil.copyfile(content, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _index(self) -> dict[str, dict[str, Any]]:
        """Return the entries of ``index.json`` by tag; entries without a tag are nobody's business here."""
        try:
            document = json.loads((self.folder / "index.json").read_bytes())
            entries = [(entry.get("annotations") or {}, entry) for entry in document["manifests"]]
            return {str(said[_REF]): entry for said, entry in entries if _REF in said}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(f"index.json cannot be read: {error!r}", where=str(self.folder)) from error
