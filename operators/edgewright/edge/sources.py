"""Where bundles are offered: a folder, or a prefix of an object store, with files ``NAME-VERSION-TARGET.tar``.

What a file's name says only decides which file is fetched. The node believes the manifest, once the signature and the
sums were compared, and refuses a bundle whose manifest says something else than its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError, DamagedArtifact, StoreError, Unavailable

_BLOCK = 1 << 20


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


class Source:
    """A place with bundles.

    Args:
        address: A folder, ``file:///folder``, ``s3://bucket/prefix``, or another address of fsspec whose client is
            installed on the node. Credentials come from the environment.

    Raises:
        ConfigError: the address cannot be used here.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address if "://" in address else f"file://{Path(address).resolve()}"
        if self.address.startswith("oci://"):
            raise ConfigError("a registry of artifacts is no source yet", where="--source", hint="a folder or s3://")
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
        shape = re.compile(rf"(?P<name>.+)-(?P<version>[1-9][0-9]{{0,8}})-{re.escape(target)}\.tar")
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
