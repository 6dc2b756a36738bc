"""The artifact store: immutable folders by digest, and small JSON documents by key.

Layout below the root, the same on every file system::

    artifacts/<aa>/<sha256>/...          the files of one artifact, and .manifest.json with each file's sha256
    runs/<dag_id>/<run_id>/<task>/...    request.json, result.json, key.json of one task of one run
    cache/<aa>/<key>.json                which result answers to which cache key
    locks/<name>                         leases

The manifest is written last, so a folder without one is not an artifact and is overwritten by the next writer. On a
local file system a folder is filled under a temporary name and renamed. Documents are always written under a temporary
name and renamed (object stores put a document in one step by themselves).
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec

from edgewright.artifacts import erasures
from edgewright.artifacts.digest import canonical_json, describe_tree, digest_tree, sha256_file
from edgewright.artifacts.refs import ArtifactRef, Kind
from edgewright.errors import DamagedArtifact, EdgewrightError, StoreError

MANIFEST = ".manifest.json"


@contextlib.contextmanager
def _store_errors(action: str, where: str) -> Iterator[None]:
    """Turn an operating system's or a client's error into one that says what was tried and how to mend it."""
    try:
        yield
    except EdgewrightError:
        raise
    except FileNotFoundError as error:
        raise StoreError(f"{action}: not found", where=where) from error
    except OSError as error:
        hint = {28: "the disk is full: free some space, then run the task again", 13: "check the permissions"}.get(
            error.errno or 0
        )
        raise StoreError(f"{action}: {error.strerror or error}", where=where, hint=hint) from error


def _changed(info: dict[str, Any]) -> float:
    """Return when a file was changed, whatever its file system calls that; one that does not say is new."""
    found = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("created")
    if isinstance(found, datetime.datetime):
        return found.timestamp()
    return float(found) if isinstance(found, (int, float)) else time.time()


def is_conflict(error: OSError) -> bool:
    """Whether S3 says that somebody else was first (the client makes ``EINVAL`` of it) or is at it just now."""
    response = getattr(error.__cause__, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    return code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class ArtifactStore:
    """Content-addressed artifacts and keyed documents below one root.

    Args:
        root: ``/path``, ``file:///path``, ``s3://bucket/prefix``, or any other fsspec address. Credentials of object
            stores come from the environment of the process, never from the address.
        cache_dir: Where artifacts of a remote store are kept once fetched. Default: a folder in the temporary
            directory that belongs to this user.
    """

    def __init__(self, root: str | os.PathLike[str], *, cache_dir: Path | None = None) -> None:
        address = os.fspath(root)
        if "://" not in address:
            address = f"file://{Path(address).resolve()}"
        self.root = address.rstrip("/")
        self.protocol = address.split("://", 1)[0]
        with _store_errors("cannot open the artifact store", self.root):
            self._fs, self._base = fsspec.core.url_to_fs(self.root)
        self._cache_dir = cache_dir or Path(tempfile.gettempdir()) / f"edgewright-{os.getuid()}" / "artifacts"

    def __repr__(self) -> str:
        return f"ArtifactStore({self.root!r})"

    @property
    def is_local(self) -> bool:
        """Whether artifacts are plain folders of this machine."""
        return self.protocol == "file"

    # -- artifacts ---------------------------------------------------------------------------------------------

    def put(self, folder: Path, kind: Kind, meta: dict[str, Any] | None = None) -> ArtifactRef:
        """Store a folder and return its reference. The same contents are stored once.

        Args:
            folder: Local folder; left as it is.
            kind: What it is.
            meta: Small facts kept in the reference (not part of the digest).

        Raises:
            StoreError: it could not be written; nothing half-written can be mistaken for an artifact.
        """
        with _store_errors("cannot store an artifact", self.root):
            files = describe_tree(folder)
            files.pop(MANIFEST, None)  # of a folder that was fetched: the same contents have the same digest
            digest = digest_tree(files)
            if erasures.mark_of(self, digest) is not None:
                raise StoreError(
                    "it holds a person who was erased meanwhile, and is not stored", where=digest, hint="run it again"
                )
            ref = ArtifactRef(
                kind=kind,
                uri=f"{self.root}/{self._artifact_key(digest)}",
                sha256=digest,
                size=sum(entry["size"] for entry in files.values()),
                meta=meta or {},
            )
            if self._is_sound(digest, files):
                self._touch(digest)
            else:
                self._write_artifact(folder, digest, files)
        return ref

    def _is_sound(self, digest: str, files: dict[str, dict[str, Any]]) -> bool:
        """Whether an artifact is there undamaged; one that is damaged is forgotten, to be written anew.

        Files of this machine are compared by their digests, those of an object store (which checks its own) by sizes.
        """
        key = self._artifact_key(digest)
        try:
            manifest = self._manifest(digest)
        except (DamagedArtifact, KeyError, TypeError):
            manifest = {}
        if manifest is None:
            return False
        if manifest == files and self.is_local:
            folder = Path(self._path(key))
            if all((folder / n).is_file() and sha256_file(folder / n) == e["sha256"] for n, e in files.items()):
                return True
        elif manifest == files:
            found = self.scan(key)
            if all(found.get(f"{key}/{n}", (-1, 0))[0] == e["size"] for n, e in files.items()):
                return True
        self._fs.rm_file(self._path(f"{key}/{MANIFEST}"))
        return False

    def _touch(self, digest: str) -> None:
        """Make an artifact young again, so that a collector at work does not remove what is wanted just now."""
        path = self._path(f"{self._artifact_key(digest)}/{MANIFEST}")
        with contextlib.suppress(PermissionError):
            if self.is_local:
                os.utime(path)
            else:
                self._fs.pipe_file(path, self._fs.cat_file(path))

    def fetch(self, ref: ArtifactRef, *, verify: bool = True) -> Path:
        """Return a local folder with the artifact's files. Treat it as read-only.

        Args:
            ref: What to fetch.
            verify: Compare every file with its digest (reads them all).

        Raises:
            StoreError: it is not there.
            DamagedArtifact: its files do not match the digest.
        """
        with _store_errors("cannot fetch an artifact", ref.uri):
            manifest = self._manifest(ref.sha256)
            if manifest is None:
                raise StoreError("the artifact is not in the store", where=ref.uri, hint=self._whither(ref.sha256))
            if digest_tree(manifest) != ref.sha256:
                raise DamagedArtifact("the artifact's manifest does not match its digest", where=ref.uri)
            folder = self._local_folder(ref.sha256, manifest)
            self._verify(folder, manifest, ref, contents=verify)
        return folder

    def _whither(self, digest: str) -> str:
        """Say what may have become of an artifact that is not there."""
        mark = erasures.mark_of(self, digest)
        if mark is None:
            from edgewright.artifacts.retention import tombstone_of

            over = tombstone_of(self, digest)
            if over is not None:
                when, keep = str(over.get("removed"))[:10], over.get("retention")
                return f"the retention of {over.get('dataset')} ({keep}) was over on {when}: run the task again"
            return "it may have been removed by gc"
        instead = (mark.get("replaced_by") or {}).get("digest")
        text = f"the version without them is {instead}" if instead else "nothing stands in its place"
        return f"it held a person who was erased on {str(mark.get('time'))[:10]}; {text}"

    def find(self, digest: str, kind: Kind) -> ArtifactRef | None:
        """Return an artifact by its digest alone, or ``None`` where the store does not have it."""
        with _store_errors("cannot look for an artifact", digest):
            files = self._manifest(digest)
        if files is None:
            return None
        size = sum(int(entry["size"]) for entry in files.values())
        return ArtifactRef(kind=kind, uri=f"{self.root}/{self._artifact_key(digest)}", sha256=digest, size=size)

    def verify(self, ref: ArtifactRef) -> bool:
        """Return whether the artifact is there and undamaged."""
        try:
            self.fetch(ref)
        except (StoreError, DamagedArtifact):
            return False
        return True

    def _verify(self, folder: Path, manifest: dict[str, dict[str, Any]], ref: ArtifactRef, *, contents: bool) -> None:
        for name, entry in manifest.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["size"]:
                raise DamagedArtifact(f"{name} is missing or has another size", where=ref.uri)
            if contents and sha256_file(path) != entry["sha256"]:
                raise DamagedArtifact(f"{name} does not match its sha256", where=ref.uri)

    @staticmethod
    def _artifact_key(digest: str) -> str:
        return f"artifacts/{digest[:2]}/{digest}"

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _manifest(self, digest: str) -> dict[str, dict[str, Any]] | None:
        document = self.read_json(f"{self._artifact_key(digest)}/{MANIFEST}")
        return None if document is None else document["files"]

    def _write_artifact(self, folder: Path, digest: str, files: dict[str, dict[str, Any]]) -> None:
        key = self._artifact_key(digest)
        manifest = canonical_json({"sha256": digest, "files": files})
        if not self.is_local:
            for name in files:
                self._fs.put_file(str(folder / name), self._path(f"{key}/{name}"))
            self._fs.pipe_file(self._path(f"{key}/{MANIFEST}"), manifest.encode())
            return
        target = Path(self._path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".tmp-{digest[:16]}-{uuid.uuid4().hex}")
        try:
            for name in files:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, temporary / name)
            temporary.mkdir(parents=True, exist_ok=True)
            (temporary / MANIFEST).write_text(manifest)
            self._rename_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @staticmethod
    def _rename_folder(temporary: Path, target: Path) -> None:
        """Put a complete folder in place; a concurrent writer of the same digest may have been first."""
        if target.exists() and not (target / MANIFEST).exists():
            target.rename(temporary.with_name(f".tmp-left-{uuid.uuid4().hex}"))
        try:
            temporary.rename(target)
        except OSError:
            if not (target / MANIFEST).exists():
                raise

    def _local_folder(self, digest: str, manifest: dict[str, dict[str, Any]]) -> Path:
        if self.is_local:
            return Path(self._path(self._artifact_key(digest)))
        target = self._cache_dir / digest[:2] / digest
        if (target / MANIFEST).exists():
            return target
        temporary = target.with_name(f".tmp-{digest[:16]}-{uuid.uuid4().hex}")
        try:
            temporary.mkdir(parents=True)
            for name in manifest:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(self._path(f"{self._artifact_key(digest)}/{name}"), str(temporary / name))
            (temporary / MANIFEST).write_text(canonical_json({"sha256": digest, "files": manifest}))
            self._rename_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def discard_local_copy(self, ref: ArtifactRef) -> None:
        """Forget a fetched copy of a remote artifact (after damage); a local store's own files are never touched."""
        if not self.is_local:
            shutil.rmtree(self._cache_dir / ref.sha256[:2] / ref.sha256, ignore_errors=True)

    # -- documents ---------------------------------------------------------------------------------------------

    def read_json(self, key: str) -> Any | None:
        """Return the document at a key, or ``None`` where there is none.

        Raises:
            DamagedArtifact: it is there and is not JSON.
            StoreError: the store cannot be read.
        """
        path = self._path(key)
        try:
            data = Path(path).read_bytes() if self.is_local else self._fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"cannot read {key}: {error.strerror or error}", where=self.root) from error
        try:
            return json.loads(data)
        except ValueError as error:
            raise DamagedArtifact(f"{key} is not JSON: {error}", where=self.root) from error

    def write_json(self, key: str, document: Any) -> str:
        """Write a document at a key in one step, and return its URI."""
        with _store_errors(f"cannot write {key}", self.root):
            data = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode()
            path = self._path(key)
            if not self.is_local:
                self._fs.pipe_file(path, data)
                return f"{self.root}/{key}"
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".tmp-{target.name}-{uuid.uuid4().hex}")
            try:
                temporary.write_bytes(data)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        return f"{self.root}/{key}"

    def create_json(self, key: str, document: Any) -> bool:
        """Write a document at a key where there is none yet, in one step; of two who try, one does it.

        Object stores need conditional writes for that (``If-None-Match``), as S3 has them.

        Returns:
            Whether it was written; ``False`` where there was one already.
        """
        data = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode()
        path = self._path(key)
        with _store_errors(f"cannot write {key}", self.root):
            if not self.is_local:
                return self._create_remote(path, data)
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".tmp-{target.name}-{uuid.uuid4().hex}")
            try:
                temporary.write_bytes(data)
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def _create_remote(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if is_conflict(error):
                return False
            raise
        return True

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write a file at a key in one step."""
        with _store_errors(f"cannot write {key}", self.root):
            path = self._path(key)
            if not self.is_local:
                self._fs.pipe_file(path, data)
                return
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
            try:
                temporary.write_bytes(data)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def put_file(self, key: str, path: Path) -> None:
        """Copy a file to a key in one step."""
        with _store_errors(f"cannot write {key}", self.root):
            if not self.is_local:
                self._fs.put_file(str(path), self._path(key))
                return
            target = Path(self._path(key))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
            try:
                shutil.copyfile(path, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def get_file(self, key: str, folder: Path) -> Path | None:
        """Return a local file with what stands at a key (copied into a folder if the store is remote), or ``None``."""
        with _store_errors(f"cannot read {key}", self.root):
            if self.is_local:
                path = Path(self._path(key))
                return path if path.is_file() else None
            target = folder / key.rpartition("/")[2]
            try:
                self._fs.get_file(self._path(key), str(target))
            except FileNotFoundError:
                return None
            return target

    def open(self, key: str) -> IO[bytes]:
        """Open the file at a key for reading.

        Raises:
            StoreError: it is not there.
        """
        with _store_errors(f"cannot read {key}", self.root):
            path = self._path(key)
            found: IO[bytes] = (open if self.is_local else self._fs.open)(path, "rb")
            return found

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys of all documents and files below a prefix, sorted; temporary files are left out."""
        with _store_errors(f"cannot list {prefix}", self.root):
            base = self._path(prefix).rstrip("/")
            if not self._fs.exists(base):
                return []
            found = self._fs.find(base)
        cut = len(self._base) + 1
        return sorted(path[cut:] for path in found if "/.tmp-" not in path)

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below a prefix, sorted."""
        with _store_errors(f"cannot list {prefix}", self.root):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._path(prefix), detail=True)
            except FileNotFoundError:
                return []
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory")

    def scan(self, prefix: str) -> dict[str, tuple[int, float]]:
        """Return size in bytes and time of the last change (seconds since 1970) of every file below a prefix.

        Temporary files are among them: this is what a collector of leftovers looks at.
        """
        with _store_errors(f"cannot list {prefix}", self.root):
            base = self._path(prefix).rstrip("/")
            self._fs.invalidate_cache()
            if not self._fs.exists(base):
                return {}
            found = self._fs.find(base, detail=True)
        cut = len(self._base) + 1
        return {path[cut:]: (int(info.get("size") or 0), _changed(info)) for path, info in sorted(found.items())}

    def delete(self, key: str) -> None:
        """Remove a document or everything below a prefix; nothing happens where there is none."""
        with _store_errors(f"cannot remove {key}", self.root):
            path = self._path(key)
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)
