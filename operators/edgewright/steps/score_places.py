"""Files and folders by address, local or in an object store, as batch scoring needs them: ranges and whole writes."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlparse

import fsspec

from edgewright.artifacts.digest import sha256_file
from edgewright.artifacts.store import is_conflict
from edgewright.errors import DataError, EdgewrightError, StoreError, Unavailable
from edgewright.steps.addresses import shown
from edgewright.steps.connections import object_store_options

BLOCK = 8 << 20
#: Files up to this size are told apart by what is in them, so that a copy or a new checkout is not scored again.
_SMALL = 64 << 20


@contextlib.contextmanager
def faults(where: str) -> Iterator[None]:
    """Turn a file system's errors into ours."""
    where = shown(where)
    try:
        yield
    except EdgewrightError:
        raise
    except FileNotFoundError as error:
        raise DataError("no such file, object or bucket", where=where) from error
    except PermissionError as error:
        raise DataError("access was refused", where=where, hint="check permissions or the connection") from error
    except OSError as error:
        if error.errno in (28, 122, 30):
            raise StoreError(f"it cannot be written: {error.strerror or error}", where=where) from error
        raise Unavailable(f"it cannot be read or written: {error}", where=where) from error
    except (ValueError, ImportError) as error:
        raise DataError(f"not an address that can be used here: {error}", where=where) from error


@dataclass(frozen=True)
class Place:
    """One address with its file system.

    Attributes:
        address: As it was given, absolute.
        connection: Airflow connection with the credentials of an object store.
        base: Folder of the pipeline, for a file that was given relative to it.
    """

    address: str
    connection: str | None = None
    base: Path | None = None

    @property
    def local(self) -> Path | None:
        """The path on this machine, or ``None``."""
        if self.address.startswith("file://"):
            return Path(unquote(urlparse(self.address).path))
        return None

    @property
    def name(self) -> str:
        """The file for people: relative where it was given so, without password and signature."""
        if self.local is None:
            return shown(unquote(self.address))
        return str(self.local.relative_to(self.base) if self.base else self.local)

    def _system(self) -> tuple[Any, str]:
        if self.local is not None:
            return fsspec.filesystem("file"), str(self.local)
        options = object_store_options(self.connection) if self.address.startswith("s3://") else {}
        found = fsspec.core.url_to_fs(self.address, **options)
        return found[0], found[1]

    def child(self, name: str) -> Place:
        """Return the place of a name below this folder."""
        return Place(f"{self.address.rstrip('/')}/{name}", self.connection)

    # -- reading -------------------------------------------------------------------------------------------------

    def expand(self) -> list[Place]:
        """Return the files that an address with ``*`` means, sorted; a plain address as it is.

        Raises:
            DataError: nothing fits.
        """
        if not any(sign in self.address for sign in "*?["):
            return [self]
        with faults(self.address):
            system, path = self._system()
            system.invalidate_cache()
            found = sorted(name for name, info in system.glob(path, detail=True).items() if info["type"] == "file")
        if not found:
            raise DataError("no file fits", where=shown(self.address))
        scheme = self.address.partition("://")[0]
        return [Place(f"{scheme}://{name}", self.connection, self.base) for name in found]

    def below(self) -> list[Place]:
        """Return all files below this folder, sorted; temporary ones are left out.

        Raises:
            DataError: there is no such folder.
        """
        with faults(self.address):
            system, path = self._system()
            system.invalidate_cache()
            found = sorted(system.find(path))
            if not found and not system.exists(path):
                raise DataError("no such folder", where=shown(self.address))
        cut = len(path.rstrip("/")) + 1
        names = [str(name)[cut:] for name in found]
        return [self.child(name) for name in names if "/.tmp-" not in f"/{name}"]

    def identity(self) -> dict[str, Any]:
        """Return what tells this version of the file from others: its size, and what its place can tell.

        That is an object's version or ETag, a small file's digest, and a large file's time of the last change.

        Raises:
            DataError: it is not there, or is a folder.
        """
        with faults(self.address):
            system, path = self._system()
            system.invalidate_cache()
            info = system.info(path)
        if info.get("type") == "directory":
            raise DataError("this is a folder", where=shown(self.address), hint="name its files: FOLDER/*.csv")
        found: dict[str, Any] = {"file": self.name, "size": int(info["size"])}
        if self.local is not None and found["size"] <= _SMALL:
            return {**found, "sha256": sha256_file(self.local)}
        for key in ("VersionId", "ETag", "etag", "generation"):
            if info.get(key) not in (None, "null"):
                return {**found, "version": str(info[key]).strip('"')}
        changed = self.local.stat().st_mtime_ns if self.local else info.get("mtime") or info.get("last_modified")
        return {**found, "changed": str(changed)}

    def open(self) -> IO[bytes]:
        """Open for reading, with seek."""
        with faults(self.address):
            if self.local is not None:
                return self.local.open("rb", buffering=0)
            system, path = self._system()
            opened: IO[bytes] = system.open(path, "rb", block_size=BLOCK)
            return opened

    def read_json(self) -> Any | None:
        """Return the document that is there, or ``None``; half a document is none."""
        with faults(self.address):
            system, path = self._system()
            try:
                return json.loads(system.cat_file(path) if self.local is None else Path(path).read_bytes())
            except (FileNotFoundError, ValueError):
                return None

    def size(self) -> int | None:
        """Return the size of the file, or ``None`` where there is none."""
        with faults(self.address):
            system, path = self._system()
            try:
                return int(system.size(path)) if self.local is None else Path(path).stat().st_size
            except FileNotFoundError:
                return None

    # -- writing -------------------------------------------------------------------------------------------------

    def write_json(self, document: Any) -> None:
        """Write a document in one step."""
        self.write(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Write bytes in one step."""
        with faults(self.address):
            if self.local is None:
                system, path = self._system()
                system.pipe_file(path, data)
                return
            with self.filling() as file:
                file.write_bytes(data)

    def create_json(self, document: dict[str, Any]) -> dict[str, Any]:
        """Write a document where there is none, and return the one that is there: of two who try, one is right."""
        data = json.dumps(document, indent=1, sort_keys=True).encode()
        with faults(self.address):
            if self.local is not None:
                self.local.parent.mkdir(parents=True, exist_ok=True)
                temporary = self.local.with_name(f".tmp-{uuid.uuid4().hex}")
                temporary.write_bytes(data)
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, self.local)
                temporary.unlink()
            else:
                self._create_object(data)
        found: dict[str, Any] = self.read_json() or document
        return found

    def _create_object(self, data: bytes) -> None:
        system, path = self._system()
        try:
            system.pipe_file(path, data, mode="create")
        except OSError as error:
            if not isinstance(error, FileExistsError) and not is_conflict(error):
                raise

    @contextlib.contextmanager
    def filling(self, scratch: Path | None = None) -> Iterator[Path]:
        """Give a temporary local file; what is in it at the end stands here, in one step.

        Args:
            scratch: Where the temporary file of an object is; local files are filled beside their place.
        """
        target = self.local
        folder = target.parent if target is not None else scratch or Path()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".tmp-{uuid.uuid4().hex}"
        try:
            yield temporary
            with faults(self.address):
                if target is not None:
                    os.replace(temporary, target)
                else:
                    system, path = self._system()
                    system.put_file(str(temporary), path)
        finally:
            temporary.unlink(missing_ok=True)


def place_of(address: str, folder: Path | None, connection: str | None) -> Place:
    """Return the place of an address; relative paths stay inside of a folder.

    Raises:
        DataError: the path leads out of the folder, or there is no folder.
    """
    if "://" in address:
        return Place(address, connection)
    if folder is None:
        raise DataError("a relative path needs a pipeline", where=address, hint="write file:///... or s3://...")
    path = Path(os.path.normpath(folder / address))
    if not path.is_relative_to(folder):
        raise DataError("leads out of the pipeline's folder", where=address, hint="write file:///... instead")
    return Place(f"file://{path}", connection, folder)
