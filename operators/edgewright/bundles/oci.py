"""Bundles as OCI artifacts: in a registry such as Harbor or distribution, or in an OCI image layout on a disk.

A bundle is one artifact, tagged ``NAME-VERSION-TARGET``: a manifest whose only layer is the bundle's tar, so signature
and sums of the bundle itself hold wherever it was kept. The same tar gives the same manifest and the same digests.

Credentials are those of ``docker login`` (``$DOCKER_CONFIG/config.json``, ``~/.docker/config.json``, credential
helpers), or a login that is handed in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from edgewright.artifacts.digest import sha256_bytes, sha256_file
from edgewright.bundles.pack import MANIFEST, SIGNATURE
from edgewright.errors import ConfigError, DamagedArtifact, NotFound, StoreError, Unavailable

ARTIFACT = "application/vnd.edgewright.bundle.v1"
LAYER = "application/vnd.edgewright.bundle.v1.tar"
IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
#: What stands in the manifest's annotations: whether the same bundle is there already is told without fetching it.
CONTENT = "dev.edgewright.bundle.manifest"
SIGNED = "dev.edgewright.bundle.signed"
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
SECONDS = 30.0
LARGEST_MANIFEST = 4 << 20
_BLOCK = 1 << 20
_HINT = "oci://HOST[:PORT]/REPOSITORY, or oci-layout:///FOLDER"


class Artifacts(Protocol):
    """A place with tagged artifacts. Every method may raise ``Unavailable``, ``ConfigError`` or ``NotFound``."""

    def tags(self) -> list[str]:
        """Return all tags."""

    def digest(self, tag: str) -> str | None:
        """Return the digest of a tag's manifest, ``None`` where there is no such tag."""

    def manifest(self, tag: str) -> bytes:
        """Return a tag's manifest."""

    def blob(self, digest: str) -> contextlib.AbstractContextManager[Callable[[int], bytes]]:
        """Open a blob; what is returned reads at most so many bytes."""

    def push(self, tag: str, manifest: bytes, blobs: dict[str, Path | bytes]) -> None:
        """Put blobs by digest, then the manifest, then the tag."""


def is_oci(address: str) -> bool:
    """Whether an address means OCI artifacts."""
    return address.startswith(("oci://", "oci-layout://"))


def open_artifacts(address: str, login: tuple[str, str] | None = None) -> Artifacts:
    """Return the place of an address.

    Args:
        address: ``oci://HOST[:PORT]/REPOSITORY`` (TLS, but for loopback) or ``oci-layout:///FOLDER``.
        login: User and password; ``None``: what ``docker login`` keeps.

    Raises:
        ConfigError: the address cannot be used here.
    """
    parts = urlsplit(address)
    if parts.scheme == "oci-layout" and parts.path.strip("/") and not parts.netloc:
        from edgewright.bundles.oci_layout import Layout

        return Layout(Path(parts.path))
    name = parts.path.strip("/")
    if parts.scheme != "oci" or not parts.netloc or "@" in parts.netloc or not re.fullmatch(r"[a-z0-9._/-]+", name):
        raise ConfigError(f"not an address of OCI artifacts: {address.rpartition('@')[2]}", hint=_HINT)
    from edgewright.bundles.oci_registry import RegistryArtifacts

    return RegistryArtifacts(parts.netloc, name, login)


# -- writing -----------------------------------------------------------------------------------------------------------


def describe(archive: Path, title: str) -> bytes:
    """Return the manifest of a bundle's archive; the same archive gives the same bytes."""
    content, signed = _inside(archive)
    document = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": EMPTY, "digest": f"sha256:{sha256_bytes(b'{}')}", "size": 2},
        "layers": [
            {
                "mediaType": LAYER,
                "digest": f"sha256:{sha256_file(archive)}",
                "size": archive.stat().st_size,
                "annotations": {"org.opencontainers.image.title": title},
            }
        ],
        "annotations": {CONTENT: f"sha256:{content}", SIGNED: str(signed).lower()},
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _inside(archive: Path) -> tuple[str, bool]:
    with tarfile.open(archive, mode="r:") as opened:
        found = opened.extractfile(MANIFEST)
        return sha256_bytes(found.read() if found else b""), SIGNATURE in opened.getnames()


def push_bundle(place: Artifacts, archive: Path, tag: str) -> str:
    """Put a bundle's archive under a tag, and return the digest of its manifest.

    Raises:
        ConfigError: the tag is longer than a registry takes, or the login is refused.
        Unavailable: the place does not answer.
    """
    if not TAG.fullmatch(tag):
        raise ConfigError(f"{tag} cannot be a tag of an artifact: it has more than 128 letters", hint="a shorter name")
    manifest = describe(archive, f"{tag}.tar")
    layer = json.loads(manifest)["layers"][0]["digest"]
    place.push(tag, manifest, {layer: archive, f"sha256:{sha256_bytes(b'{}')}": b"{}"})
    return f"sha256:{sha256_bytes(manifest)}"


def holds_bundle(place: Artifacts, tag: str, content: bytes, *, signed: bool) -> bool:
    """Whether a tag is a bundle with this ``manifest.json`` already; signatures differ each time, not compared."""
    try:
        said = json.loads(place.manifest(tag)).get("annotations") or {}
    except (NotFound, ValueError, AttributeError):
        return False
    return (said.get(CONTENT), said.get(SIGNED)) == (f"sha256:{sha256_bytes(content)}", str(signed).lower())


# -- reading -----------------------------------------------------------------------------------------------------------


def pull_bundle(place: Artifacts, tag: str, path: Path, limit: int) -> None:
    """Copy a bundle's archive to a file, compared with its digest.

    Raises:
        DamagedArtifact: the artifact is no bundle, larger than the limit, or other bytes than its digest says.
        Unavailable: the place does not answer, or the line was cut.
        StoreError: the file cannot be written.
    """
    layer = bundle_layer(place.manifest(tag), tag)
    if layer["size"] > limit:
        raise DamagedArtifact(f"the bundle is larger than {limit >> 20} MiB", where=tag)
    said, size = hashlib.sha256(), 0
    with _opened(path) as write, place.blob(layer["digest"]) as read:
        while block := read(_BLOCK):
            size += len(block)
            if size > layer["size"]:
                break
            said.update(block)
            write(block)
    if size < layer["size"]:
        raise Unavailable(f"{tag} was cut off after {size:,} bytes")
    if size > layer["size"] or f"sha256:{said.hexdigest()}" != layer["digest"]:
        raise DamagedArtifact("the bundle does not match its digest", where=tag)


def bundle_layer(manifest: bytes, tag: str) -> dict[str, Any]:
    """Return what a manifest says of its one layer.

    Raises:
        DamagedArtifact: it is no bundle.
    """
    try:
        document = json.loads(manifest)
        (layer,) = document["layers"]
        if layer["mediaType"] != LAYER or not re.fullmatch(r"sha256:[0-9a-f]{64}", layer["digest"]):
            raise ValueError(layer["mediaType"])
        return {"digest": str(layer["digest"]), "size": int(layer["size"])}
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedArtifact("the artifact is no bundle of ours", where=tag) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Callable[[bytes], None]]:
    def cannot(error: OSError) -> StoreError:
        return StoreError(f"the bundle cannot be kept: {error.strerror or error}", where=str(path.parent))

    try:
        file = path.open("wb", buffering=0)  # so that a full disk shows at the write, not at the end
    except OSError as error:
        raise cannot(error) from error

    def write(block: bytes) -> None:
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise cannot(error) from error

    with file:
        yield write
