"""An object store or a folder as an event source: each version of an object is in exactly one batch.

The store is looked at every few seconds, page by page, so memory follows from what is new and from eight bytes for each
object that was seen, never from a listing. What was seen stands in the batches themselves. An object of S3 is whole
once it is listed; a file is taken when its size and time were the same in two looks. Empty objects, hidden and
temporary names are not taken. Objects that are there at the first look are taken.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from edgewright.errors import ConfigError, Unavailable
from edgewright.spec.triggers import Marker, ObjectsTrigger, seconds
from edgewright.streams.batches import Batch, BatchLog

log = logging.getLogger("edgewright.streams")
#: Objects of one batch at most.
MOST = 10_000
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")


@dataclass(frozen=True)
class Object:
    """One version of an object.

    Attributes:
        uri: Its address.
        size: Bytes.
        version: Its ETag, or for a file its time in nanoseconds.
        modified: Seconds since 1970.
    """

    uri: str
    size: int
    version: str
    modified: float

    @property
    def identity(self) -> int:
        """Eight bytes that tell versions of objects apart."""
        text = f"{self.uri}\0{self.version}\0{self.size}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class ObjectSource:
    """Looks for objects and cuts batches.

    Args:
        config: The trigger.
        settings: Of the connection: ``login``, ``password``, ``extra``.
        batches: Where batches go.

    Raises:
        ConfigError: the address cannot be listened to.
    """

    def __init__(self, config: ObjectsTrigger, settings: Mapping[str, Any], batches: BatchLog) -> None:
        self.config = config
        self.batches = batches
        self._marker = config.when.marker if isinstance(config.when, Marker) else None
        protocol, _, path = config.uri.partition("://")
        base = path[: _first_wildcard(path)].rpartition("/")[0]
        self._pattern = re.compile(_translate(path))
        if protocol == "file":
            self._lister: Any = _Folder(unquote(base) or "/")
        elif protocol == "s3":
            self._lister = _Bucket(base, settings)
        else:
            raise ConfigError(f"{config.uri} cannot be watched", hint="s3:// or file://")
        self._seen: set[int] = set()
        self._known = 0
        self._before: dict[int, float] = {}
        self._next = 0.0
        self.problem: str | None = None

    @property
    def gathered(self) -> int:
        """How many objects wait for a batch."""
        return len(self._before)

    def poll(self, timeout: float = 1.0) -> Batch | None:
        """Look once the time has come, else wait; return a batch when one is complete and stored."""
        rest = self._next - time.monotonic()
        if rest > 0:
            time.sleep(min(timeout, rest))
            return None
        self._next = time.monotonic() + seconds(self.config.every)
        try:
            found = self._look()
        except (OSError, Unavailable) as error:
            if str(error) != self.problem:
                self.problem = str(error)
                log.warning("%s waits for the object store: %s", self.batches.source, error)
            return None
        if self.problem is not None:
            log.warning("%s: the object store answers again", self.batches.source)
            self.problem = None
        return self._cut(found) if self._is_enough(found) else None

    def close(self) -> None:
        """Let go of nothing."""

    # -- looking -----------------------------------------------------------------------------------------------

    def _look(self) -> list[Object]:
        """Return the new objects that are whole, at most one batch of them (and remember since when they are there)."""
        self._catch_up()
        fresh: list[Object] = []
        marked: set[str] = set()
        for found in self._lister.objects():
            folder, _, name = found.uri.rpartition("/")
            if self._marker is not None and name == self._marker:
                marked.add(folder)
            elif self._is_wanted(found, name) and found.identity not in self._seen:
                fresh.append(found)
        if self._marker is not None:
            fresh = [found for found in fresh if found.uri.rpartition("/")[0] in marked]
        now = time.monotonic()
        before, self._before = self._before, {found.identity: now for found in fresh}
        self._before |= {identity: since for identity, since in before.items() if identity in self._before}
        if self._lister.needs_two_looks and self._marker is None:
            fresh = [found for found in fresh if found.identity in before]
        by = (lambda o: o.uri) if self.config.order == "key" else (lambda o: (o.modified, o.uri))
        return sorted(fresh, key=by)[:MOST]

    def _is_wanted(self, found: Object, name: str) -> bool:
        if not found.size or name.startswith(".") or name.endswith(_UNFINISHED):
            return False
        return self._pattern.fullmatch(found.uri.partition("://")[2]) is not None

    def _is_enough(self, found: list[Object]) -> bool:
        if not found:
            return False
        oldest = min(self._before[one.identity] for one in found)
        waited = time.monotonic() - oldest >= seconds(self.config.batch.max_wait)
        return waited or len(found) >= self.config.batch.min_objects

    def _catch_up(self) -> None:
        """Read what batches have been made since the last look, by this or another source."""
        head = self.batches.head()
        for number in range(self._known + 1, (head.number if head else 0) + 1):
            batch = self.batches.read(number)
            if batch is None:
                continue
            with self.batches.store.open(batch.data) as file:
                self._seen.update(Object(**json.loads(line)["value"]).identity for line in file)
            self._known = number

    # -- batches -----------------------------------------------------------------------------------------------

    def _cut(self, found: list[Object]) -> Batch | None:
        while True:
            self._catch_up()
            found = [one for one in found if one.identity not in self._seen]
            if not found:
                return None
            made = self.batches.append(self._draft(found))
            if made is not None:
                return made

    def _draft(self, found: list[Object]) -> Batch:
        lines = b"".join(_line(number, one) for number, one in enumerate(found))
        digest = hashlib.sha256(lines).hexdigest()
        first = re.sub(r"[^A-Za-z0-9._-]+", "-", found[0].uri.rpartition("/")[2])[:60]
        name = f"{first}-{digest[:12]}"
        key, sha256 = self.batches.write_data(name, lines)
        stamps = [int(one.modified * 1000) for one in found]
        return Batch(
            number=0, name=name, kind="objects", data=key, messages=len(found), size=len(lines), sha256=sha256,
            timestamps=[min(stamps), max(stamps)], details={"bytes": sum(one.size for one in found)},
        )  # fmt: skip


def open_source(config: ObjectsTrigger, settings: Mapping[str, Any], batches: BatchLog) -> ObjectSource:
    """Return the source of a trigger."""
    if config.notifications is not None:
        from edgewright.streams.notified import NotifiedSource

        return NotifiedSource(config, settings, batches)
    return ObjectSource(config, settings, batches)


def _line(number: int, one: Object) -> bytes:
    return json.dumps({"offset": number, "value": asdict(one)}, ensure_ascii=False).encode() + b"\n"


def _first_wildcard(path: str) -> int:
    return min((place for mark in "*?[" if (place := path.find(mark)) >= 0), default=len(path))


def _translate(pattern: str) -> str:
    """Return a pattern of a path as a regular expression; ``*`` stays within a folder, ``**`` does not."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))


class _Folder:
    """Files below a folder, as ``os.scandir`` gives them."""

    needs_two_looks = True

    def __init__(self, base: str) -> None:
        self._base = base

    def objects(self) -> Iterator[Object]:
        """Yield every file; one that goes away meanwhile is left out."""
        if not Path(self._base).is_dir():
            raise Unavailable(f"there is no folder {self._base}")
        for place, _, names in os.walk(self._base):
            for name in names:
                try:
                    state = os.stat(f"{place}/{name}")
                except FileNotFoundError:
                    continue
                uri = f"file://{place}/{name}"
                yield Object(uri, state.st_size, str(state.st_mtime_ns), state.st_mtime)


class _Bucket:
    """Objects of S3 and what speaks its protocol, page by page of a thousand keys."""

    needs_two_looks = False

    def __init__(self, base: str, settings: Mapping[str, Any]) -> None:
        import s3fs

        extra = settings.get("extra") or {}
        client = {name: extra[name] for name in ("endpoint_url", "region_name") if extra.get(name)}
        options = {"key": settings.get("login"), "secret": settings.get("password"),
                   "token": extra.get("aws_session_token"), "client_kwargs": client}  # fmt: skip
        self._fs = s3fs.S3FileSystem(**{name: value for name, value in options.items() if value})
        self._bucket, _, self._prefix = base.partition("/")

    def objects(self) -> Iterator[Object]:
        """Yield every object below the prefix."""
        token: dict[str, str] = {}
        while True:
            page = self._page(token)
            yield from self._of(page.get("Contents") or ())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, token: dict[str, str]) -> Any:
        prefix = f"{self._prefix}/" if self._prefix else ""
        try:
            return self._fs.call_s3("list_objects_v2", Bucket=self._bucket, Prefix=prefix, **token)
        except Exception as error:
            raise Unavailable(f"{type(error).__name__}: {error}", where=f"s3://{self._bucket}") from error

    def _of(self, entries: Iterable[Mapping[str, Any]]) -> Iterator[Object]:
        for entry in entries:
            changed = entry["LastModified"]
            moment = changed.timestamp() if isinstance(changed, datetime.datetime) else 0.0
            uri = f"s3://{self._bucket}/{entry['Key']}"
            yield Object(uri, int(entry["Size"]), str(entry["ETag"]).strip('"'), moment)
