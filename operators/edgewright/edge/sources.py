"""Where bundles are offered: a folder, an object store, an OCI registry, or an OCI image layout on a disk.

Files are called ``NAME-VERSION-TARGET.tar``, artifacts are tagged ``NAME-VERSION-TARGET``. What a name
says only decides what is fetched. The node believes the manifest, once the signature and the sums were compared, and
refuses a bundle whose manifest says something else than its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edgewright.bundles.oci import is_oci, open_artifacts, pull_bundle
from edgewright.errors import ConfigError, DamagedArtifact, StoreError, Unavailable

_BLOCK = 1 << 20
#: Of so many newest artifacts the digests are asked for at each look; older ones are told apart by their tags.
_LOOKED_AT = 10


@dataclass(frozen=True)
class Offer:
    """A bundle that could be taken.

    Attributes:
        name: Registered name of the model.
        version: Registered version.
        target: What it was compiled for.
        key: Where it is.
        mark: Changes when the file changes, so that a refused one is looked at again once it was replaced.
    """

    name: str
    version: int
    target: str
    key: str
    mark: str


class Source(Protocol):
    """A place with bundles."""

    def offers(self, target: str, name: str | None = None) -> list[Offer]:
        """Return the bundles for a target, the newest last.

        Raises:
            Unavailable: the place does not answer.
        """

    def fetch(self, offer: Offer, path: Path, limit: int) -> None:
        """Copy a bundle to a file.

        Raises:
            Unavailable: the source does not answer, or the line was cut.
            DamagedArtifact: it is larger than the limit.
            StoreError: the file cannot be written.
        """


def open_source(address: str) -> Source:
    """Return the place of an address.

    Raises:
        ConfigError: the address cannot be used here.
    """
    return Repository(address) if is_oci(address) else Folder(address)


def _shape(target: str, ending: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<name>.+)-(?P<version>[1-9][0-9]{{0,8}})-{re.escape(target)}{ending}")


class Repository:
    """Bundles as OCI artifacts.

    Args:
        address: ``oci://HOST/REPOSITORY`` or ``oci-layout:///FOLDER``. Credentials are those of ``docker login``.

    Raises:
        ConfigError: the address cannot be used here.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._place = open_artifacts(address)

    def offers(self, target: str, name: str | None = None) -> list[Offer]:
        """Return the bundles for a target, the newest last."""
        found = []
        for tag in self._place.tags():
            fits = _shape(target, "").fullmatch(tag)
            if fits and name in (None, fits["name"]):
                found.append(Offer(fits["name"], int(fits["version"]), target, tag, tag))
        found.sort(key=lambda offer: (offer.version, offer.name))
        newest = [self._marked(offer) for offer in found[-_LOOKED_AT:]]
        return [*found[:-_LOOKED_AT], *newest]

    def _marked(self, offer: Offer) -> Offer:
        return replace(offer, mark=f"{offer.key}:{self._place.digest(offer.key)}")

    def fetch(self, offer: Offer, path: Path, limit: int) -> None:
        """Copy a bundle to a file, compared with its digest."""
        pull_bundle(self._place, offer.key, path, limit)


class Folder:
    """A folder, or a prefix of an object store.

    Args:
        address: A folder, ``file:///folder``, ``s3://bucket/prefix``, or another address of fsspec whose client is
            installed on the node. Credentials come from the environment.

    Raises:
        ConfigError: the address cannot be used here.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address if "://" in address else f"file://{Path(address).resolve()}"
        try:
            self._fs, self._base = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"the source cannot be used: {error}", where="--source", hint="for s3:// the node needs s3fs"
            ) from error

    def offers(self, target: str, name: str | None = None) -> list[Offer]:
        """Return the bundles for a target, the newest last.

        Raises:
            Unavailable: the place does not answer.
        """
        shape = _shape(target, r"\.tar")
        found = []
        for entry in self._list():
            fits = shape.fullmatch(str(entry["name"]).rpartition("/")[2])
            if entry.get("type") == "file" and fits and name in (None, fits["name"]):
                found.append(Offer(fits["name"], int(fits["version"]), target, entry["name"], _mark(entry)))
        return sorted(found, key=lambda offer: (offer.version, offer.name))

    def _list(self) -> list[dict[str, Any]]:
        try:
            self._fs.invalidate_cache()
            return list(self._fs.ls(self._base, detail=True))
        except FileNotFoundError as error:
            raise Unavailable(f"the source is not there: {self.address}") from error
        except Exception as error:  # clients of object stores raise many kinds
            raise Unavailable(f"the source does not answer: {type(error).__name__}: {error}") from error

    def fetch(self, offer: Offer, path: Path, limit: int) -> None:
        """Copy a bundle to a file.

        Raises:
            Unavailable: the source does not answer, or the line was cut.
            DamagedArtifact: it is larger than the limit.
            StoreError: the file cannot be written.
        """
        try:
            source = self._fs.open(offer.key, "rb")
        except Exception as error:  # clients of object stores raise many kinds
            raise Unavailable(f"{offer.key} cannot be fetched: {type(error).__name__}: {error}") from error
        with source:
            _copy(source, path, limit, offer.key)


def _copy(source: Any, path: Path, limit: int, where: str) -> None:
    size = 0
    try:
        file = path.open("wb")
    except OSError as error:
        raise _cannot_keep(error, path) from error
    with file:
        while True:
            try:
                block = source.read(_BLOCK)
            except Exception as error:  # clients of object stores raise many kinds
                raise Unavailable(f"{where} was cut off: {type(error).__name__}: {error}") from error
            if not block:
                break
            size += len(block)
            if size > limit:
                raise DamagedArtifact(f"the bundle is larger than {limit >> 20} MiB", where=where)
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                raise _cannot_keep(error, path) from error


def _cannot_keep(error: OSError, path: Path) -> StoreError:
    return StoreError(f"the bundle cannot be kept: {error.strerror or error}", where=str(path.parent))


def _mark(entry: dict[str, Any]) -> str:
    changed = entry.get("ETag") or entry.get("mtime") or entry.get("LastModified") or ""
    return f"{str(entry['name']).rpartition('/')[2]}:{entry.get('size')}:{changed}"
