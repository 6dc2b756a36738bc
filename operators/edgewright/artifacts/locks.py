"""A lease in the artifact store: at most one holder at a time, on every machine that sees the store.

The lock is an object that is created only where none exists (``O_EXCL`` locally, ``If-None-Match: *`` on S3). It holds
its owner and the time at which it lapses; a holder that died is overtaken after that. Work under a lease must take less
than its time, or be harmless when two do it (publishing checks again after it has written).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Iterator

from edgewright.artifacts.store import ArtifactStore
from edgewright.errors import Busy, StoreError


class Lease:
    """Leases below ``locks/`` of one store.

    Args:
        store: Where the lock objects live.
        name: Name of what is locked; slashes make folders.
        seconds: How long a holder may keep it before others may overtake it.
    """

    def __init__(self, store: ArtifactStore, name: str, *, seconds: float = 120.0) -> None:
        self._store = store
        self.name = name
        self.seconds = seconds
        self._path = store._path(f"locks/{name}")
        self._fs = store._fs
        self._token = uuid.uuid4().hex

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

    def _document(self) -> bytes:
        owner = f"{socket.gethostname()}:{os.getpid()}"
        return json.dumps({"token": self._token, "owner": owner, "until": time.time() + self.seconds}).encode()

    def _try(self) -> bool:
        try:
            if self._store.is_local:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                temporary = f"{self._path}.{self._token}"
                with open(temporary, "wb") as file:
                    file.write(self._document())
                try:
                    # a hard link appears complete or not at all, so nobody ever reads half a lock
                    os.link(temporary, self._path)
                finally:
                    os.unlink(temporary)
            else:
                self._fs.pipe_file(self._path, self._document(), mode="create")
        except FileExistsError:
            return self._overtake()
        except OSError as error:
            raise StoreError(f"cannot lock {self.name}: {error}", where=self._store.root) from error
        return True

    def _read(self) -> dict[str, object] | None:
        document = self._store.read_json(f"locks/{self.name}")
        return document if isinstance(document, dict) else None

    def _overtake(self) -> bool:
        """Remove a lapsed lock; the next attempt takes it like anybody else."""
        document = self._read()
        if document is not None and float(str(document["until"])) < time.time():
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path)
        return False

    def _holder(self) -> str:
        document = self._read()
        return "nobody any more" if document is None else str(document["owner"])

    def _release(self) -> None:
        document = self._read()
        if document is not None and document.get("token") == self._token:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path)
