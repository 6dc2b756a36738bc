"""A lease in the artifact store: at most one holder at a time, on every machine that sees the store.

A lease is a small document with its holder and the time at which it lapses. Every change of it is a comparison and an
exchange in one step, so that of two who overtake a lapsed lease only one wins:

* on a local file system under ``flock`` on one guard file (the kernel lets go when a process dies; a shared file
  system must support it, as NFS 4 does),
* on S3 and what speaks its protocol by conditional writes: ``If-None-Match: *`` to create, ``If-Match: <etag>`` to
  overtake and to give back. Other object stores only create; a lapsed lease there is removed first, which leaves a gap
  of milliseconds in which two may win.

A holder that died is overtaken when its time is over, and at once where that can be seen: the same machine, and its
process is gone. Work under a lease must take less than its time, or be harmless when two do it (publishing checks
again after it has written).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewright.artifacts.store import ArtifactStore, is_conflict
from edgewright.errors import Busy, DamagedArtifact, StoreError

#: What a backend compares before it writes: bytes, an etag; ``None`` where there is no lease.
_Seen = Any


class Lease:
    """Leases below ``locks/`` of one store.

    Args:
        store: Where the lease's document lives.
        name: Name of what is locked; slashes make folders.
        seconds: How long a holder may keep it before others may overtake it.
    """

    def __init__(self, store: ArtifactStore, name: str, *, seconds: float = 120.0) -> None:
        self._store = store
        self.name = name
        self.seconds = seconds
        self._token = uuid.uuid4().hex
        path = store._path(f"locks/{name}")
        self._backend: _Local | _Remote
        self._backend = _Local(store, Path(path)) if store.is_local else _Remote(store, path)

    @contextlib.contextmanager
    def hold(self, *, timeout: float = 60.0) -> Iterator[None]:
        """Take the lease, wait for it at most ``timeout`` seconds, and give it back at the end.

        Raises:
            Busy: somebody else held it all the time.
            StoreError: the store cannot be written.
        """
        deadline = time.monotonic() + timeout
        while not self._try():
            if time.monotonic() > deadline:
                raise Busy(f"{self.name} is locked by {self._holder()}", hint="it lapses by itself; try again")
            time.sleep(0.05 + random.random() * 0.1)
        try:
            yield
        finally:
            self._release()

    def _document(self, seconds: float) -> bytes:
        owner = f"{socket.gethostname()}:{os.getpid()}"
        document = {"token": self._token, "owner": owner, "until": time.time() + seconds, "process": this_process()}
        return json.dumps(document).encode()

    def _try(self) -> bool:
        with self._errors("lock"):
            data, seen = self._backend.read()
            if _is_held(data):
                return False
            return self._backend.exchange(seen, self._document(self.seconds))

    def _holder(self) -> str:
        with self._errors("lock"):
            document = _parse(self._backend.read()[0])
        return str(document.get("owner", "nobody any more"))

    def _release(self) -> None:
        """Give the lease back; one that was overtaken belongs to somebody else and stays."""
        try:
            data, seen = self._backend.read()
            if _parse(data).get("token") == self._token:
                self._backend.remove(seen)
        except (OSError, StoreError):
            return  # it lapses by itself; what was done under it must not fail for that

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "the disk is full: free some space" if error.errno == errno.ENOSPC else None
            raise StoreError(
                f"cannot {action} {self.name}: {error.strerror or error}", where=self._store.root, hint=hint
            ) from error


class _Local:
    """A file, changed under a lock of the kernel's."""

    def __init__(self, store: ArtifactStore, path: Path) -> None:
        self._path = path
        self._guard = Path(store._path("locks/.guard"))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        self._guard.parent.mkdir(parents=True, exist_ok=True)
        with self._guard.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self) -> tuple[bytes | None, _Seen]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None, None
        return data, data

    def exchange(self, seen: _Seen, data: bytes) -> bool:
        with self._guarded():
            if self.read()[1] != seen:
                return False
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_name(f".tmp-{self._path.name}-{uuid.uuid4().hex}")
            try:
                temporary.write_bytes(data)
                temporary.replace(self._path)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def remove(self, seen: _Seen) -> None:
        with self._guarded():
            if self.read()[1] == seen:
                self._path.unlink(missing_ok=True)


class _Remote:
    """An object, changed by conditional writes where the store has them."""

    def __init__(self, store: ArtifactStore, path: str) -> None:
        self._fs = store._fs
        self._path = path
        self._conditional = store.protocol in ("s3", "s3a")

    def read(self) -> tuple[bytes | None, _Seen]:
        for _ in range(5):
            etag = self._etag()
            if etag is None:
                return None, None
            try:
                data: bytes = self._fs.cat_file(self._path)
            except FileNotFoundError:
                return None, None
            if self._etag() == etag:
                return data, etag
        return b"", ""  # it changes hands all the time: neither free nor to be overtaken

    def _etag(self) -> str | None:
        self._fs.invalidate_cache(self._path.rpartition("/")[0])
        try:
            info = self._fs.info(self._path)
        except FileNotFoundError:
            return None
        return str(info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or "")

    def exchange(self, seen: _Seen, data: bytes) -> bool:
        if seen is not None and not self._conditional:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path)
            seen = None
        try:
            if seen is None:
                self._fs.pipe_file(self._path, data, mode="create")
            else:
                self._fs.pipe_file(self._path, data, IfMatch=seen)
        except FileExistsError:
            return False
        except OSError as error:
            if is_conflict(error):
                return False
            raise
        return True

    def remove(self, seen: _Seen) -> None:
        if self._conditional:
            # a conditional delete is not part of every S3; an empty document is a lease that nobody holds
            with contextlib.suppress(OSError):
                self._fs.pipe_file(self._path, b"{}", IfMatch=seen)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path)


def _parse(data: bytes | None) -> dict[str, Any]:
    try:
        document = json.loads(data or b"{}")
    except ValueError as error:
        raise DamagedArtifact(f"a lease is not JSON: {error}", hint="remove it below locks/ of the store") from error
    return document if isinstance(document, dict) else {}


def _is_held(data: bytes | None) -> bool:
    if data == b"":
        return True
    document = _parse(data)
    if not document:
        return False
    return float(document.get("until", 0)) >= time.time() and not is_gone(document.get("process"))


# -- processes -----------------------------------------------------------------------------------------------------


@functools.cache
def _machine() -> str:
    """Return what tells apart machines and containers (whose process numbers mean other processes)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process started, in ticks; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def this_process() -> dict[str, Any]:
    """Return what tells this process from all others, on whatever machine."""
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_gone(process: Any) -> bool:
    """Whether a holder was a process of this machine that does not run any more."""
    if not isinstance(process, dict) or not _machine() or process.get("machine") != _machine():
        return False
    return _started(int(process["pid"])) != process.get("started")
