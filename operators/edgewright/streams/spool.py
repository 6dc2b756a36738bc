"""A queue on disk: records are appended by many, read by one in the same order, and forgotten once they are sent.

::

    <folder>/00000001.log    segments: length, CRC-32 (4 bytes each, big-endian), then the record
    <folder>/sent.json       where the first record that was not sent begins

A record is with the kernel before :meth:`Spool.append` returns, so it outlives the process (SIGKILL). It outlives the
machine once it is synced: all records of the last ``window`` seconds are synced together, and whoever needs to know
waits for :meth:`Spool.synced`. What was sent shortly before a crash may be sent again.

Every start begins a segment, so a record that was half-written by a machine that failed is the last of its segment.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgewright.errors import StoreError

log = logging.getLogger(__name__)

_HEAD = struct.Struct("!II")
_SEGMENT = 16 << 20
_CURSOR = "sent.json"
_BLOCK = 1 << 20


class SpoolFull(StoreError):
    """The spool holds as much as it may; nothing was appended."""


@dataclass(frozen=True, order=True)
class Place:
    """A place in the spool: the number of a segment, and bytes from its begin."""

    segment: int = 0
    offset: int = 0


class Spool:
    """The queue; one process each.

    Args:
        folder: Where it is kept.
        limit: Bytes of records that may wait.
        window: Seconds between two syncs; 0: as soon as something waits for it.
        segment: Bytes after which a segment is closed.

    Raises:
        StoreError: the folder cannot be used.
    """

    def __init__(self, folder: Path, *, limit: int = 256 << 20, window: float = 0.5, segment: int = _SEGMENT) -> None:
        self.folder, self.limit, self.window, self._segment_size = folder, limit, window, segment
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: list[Future[None]] = []
        self._dirty = self._closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._sizes = {int(path.stem): path.stat().st_size for path in folder.glob("*.log")}
            self._sent = self._read_cursor()
            self._saved = self._sent
            self._number = max([*self._sizes, self._sent.segment], default=0) + 1
            self._file = self._open(self._number)
            if not self.waiting_bytes:
                self._sent = Place(self._number, 0)
            self._forget()
        except OSError as error:
            raise StoreError(f"the spool cannot be used: {error.strerror or error}", where=str(folder)) from error
        self._syncing = threading.Thread(target=self._sync_forever, name="spool-sync", daemon=True)
        self._syncing.start()

    # -- writing -----------------------------------------------------------------------------------------------

    def append(self, records: Sequence[bytes]) -> None:
        """Append records, all or none.

        Raises:
            SpoolFull: there is no room for them.
            StoreError: they could not be written.
        """
        data = b"".join(_HEAD.pack(len(record), zlib.crc32(record)) + record for record in records)
        with self._changed:
            if self.waiting_bytes + len(data) > self.limit:
                raise SpoolFull(f"the spool holds its {self.limit >> 20} MiB", where=str(self.folder))
            try:
                if self._sizes[self._number] >= self._segment_size:
                    self._roll()
                self._write(data)
            except OSError as error:
                raise StoreError(f"the spool cannot be written: {error.strerror}", where=str(self.folder)) from error
            self._sizes[self._number] += len(data)
            self._dirty = True
            self._changed.notify_all()

    def synced(self) -> Future[None]:
        """Return what is done when all that was appended so far is on the disk, or fails when it cannot be."""
        future: Future[None] = Future()
        with self._changed:
            if self._dirty:
                self._waiting.append(future)
                self._changed.notify_all()
                return future
        future.set_result(None)
        return future

    def _write(self, data: bytes) -> None:
        """Write all or nothing: what a full disk took half of is cut off again."""
        begin = self._sizes[self._number]
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        except OSError:
            os.ftruncate(self._file.fileno(), begin)
            raise

    def _roll(self) -> None:
        os.fsync(self._file.fileno())
        following = self._open(self._number + 1)
        self._file.close()
        self._file, self._number = following, self._number + 1

    def _open(self, number: int) -> BinaryIO:
        file = (self.folder / f"{number:08d}.log").open("ab", buffering=0)
        self._sizes[number] = 0
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name must outlive the machine too
        finally:
            os.close(folder)
        return file

    def _sync_forever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._closed)
                if not self._dirty:
                    return
                if not self._waiting and not self._closed:
                    self._changed.wait_for(lambda: bool(self._waiting) or self._closed, self.window)
                waiting, self._waiting, self._dirty = self._waiting, [], False
                number = os.dup(self._file.fileno())
            failure: OSError | None = None
            try:
                os.fsync(number)
            except OSError as error:
                failure = error
                log.error("the spool cannot be synced: %s", error)
            finally:
                os.close(number)
            for future in waiting:
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(StoreError(f"the spool cannot be synced: {failure}", where=str(self.folder)))

    # -- reading -----------------------------------------------------------------------------------------------

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were not sent yet."""
        return sum(size for number, size in self._sizes.items() if number >= self._sent.segment) - self._sent.offset

    @property
    def sent(self) -> Place:
        """Where the first record that was not sent begins."""
        return self._sent

    def wait(self, place: Place, timeout: float) -> bool:
        """Wait until there is something behind a place, or the spool is closed; return whether there is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._behind(place) or self._closed, timeout) and self._behind(place)

    def _behind(self, place: Place) -> bool:
        return place < Place(self._number, self._sizes[self._number]) and any(
            size > (place.offset if number == place.segment else 0)
            for number, size in self._sizes.items()
            if number >= place.segment
        )

    def read(self, place: Place) -> Iterator[tuple[Place, bytes]]:
        """Yield the records from a place on that are there now, each with the place behind it.

        An empty one stands for the rest of a segment that cannot be read.
        """
        with self._lock:
            ends = dict(self._sizes)
        for number in sorted(number for number in ends if number >= place.segment):
            start = place.offset if number == place.segment else 0
            yield from self._read_segment(number, start, ends[number])

    def _read_segment(self, number: int, start: int, end: int) -> Iterator[tuple[Place, bytes]]:
        with (self.folder / f"{number:08d}.log").open("rb") as file:
            file.seek(start)
            at = start
            while at < end:
                head = file.read(_HEAD.size)
                length, digest = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 1)
                record = file.read(length) if length <= end - at else b""
                if len(record) != length or zlib.crc32(record) != digest:
                    # half-written when the machine failed: nothing of this segment is readable behind it
                    log.error("%s: the record at %s is damaged; the rest of the segment is left out", file.name, at)
                    yield Place(number, end), b""
                    return
                at += _HEAD.size + length
                yield Place(number, at), record

    def mark_sent(self, place: Place) -> None:
        """Remember that everything before a place was sent."""
        with self._changed:
            self._sent = max(self._sent, place)

    def save(self) -> None:
        """Write down what was sent, and remove segments that nobody needs."""
        with self._changed:
            sent, newest = self._sent, Place(self._number, self._sizes[self._number])
            if sent >= newest and self._sizes[self._number] >= self._segment_size:
                self._roll()
                sent = self._sent = Place(self._number, 0)
        if sent == self._saved:
            return
        temporary = self.folder / f".tmp-{_CURSOR}"
        temporary.write_text(json.dumps([sent.segment, sent.offset]))
        temporary.replace(self.folder / _CURSOR)
        self._saved = sent
        with self._changed:
            self._forget()

    def _read_cursor(self) -> Place:
        try:
            return Place(*json.loads((self.folder / _CURSOR).read_text()))
        except (OSError, ValueError, TypeError):
            return Place(min(self._sizes, default=0), 0)  # everything that is there is sent again

    def _forget(self) -> None:
        for number in [number for number in self._sizes if number < self._sent.segment]:
            (self.folder / f"{number:08d}.log").unlink(missing_ok=True)
            del self._sizes[number]

    def close(self) -> None:
        """Sync and stop; what was not sent stays for the next start."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._syncing.join(30)
        self.save()
        self._file.close()


def timestamp(seconds: float) -> str:
    """Return a time as it stands in messages: ISO 8601, UTC, milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
