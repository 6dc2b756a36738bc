"""Sources that give rows, not a file: databases, web services. One interface, and what reads any of them.

A source names its parts; each is read by itself, several at a time where the source allows it, and tried again where
its server fails. A part that is complete is kept beside the run's result until all are, so that a task that is tried
again (or was killed) reads only the parts that lack. Personal columns are treated before a row is written anywhere.
"""

from __future__ import annotations

import concurrent.futures
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from edgewright.artifacts.digest import digest_json
from edgewright.errors import DataError, Unavailable
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.context import StepContext
from edgewright.steps.meter import Meter
from edgewright.steps.personal import Protector
from edgewright.steps.row_segments import Segment, SegmentWriter

_TRIES = 4
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A part of a source that is read by itself.

    Attributes:
        name: Its number from 0 on, with leading zeros.
        at: What :meth:`RowSource.read` needs to find it; plain JSON.
    """

    name: str
    at: dict[str, Any] = field(default_factory=dict)


class RowSource(ABC):
    """Where rows come from. :meth:`close` it.

    Attributes:
        shown: How messages and the manifest name it; never a secret.
        tries_itself: Whether :meth:`read` tries again by itself where the server does not answer.
        begins: From where it is read, as plain JSON: what an earlier try kept answers only for the same beginning.
        parallel: Parts that may be read at the same time.
    """

    shown: str = ""
    tries_itself: bool = False
    begins: Any = None
    parallel: int = 1

    @abstractmethod
    def parts(self) -> list[Part]:
        """Return the parts (the first one, where only reading a part tells the next).

        Raises:
            DataError: the source is not there, or does not fit.
            Unavailable: its server does not answer.
        """

    @abstractmethod
    def read(self, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield a part's rows; types may differ from batch to batch.

        Raises:
            DataError: a value has no place in a dataset.
            Unavailable: the server does not answer; the part is then read again from its beginning.
        """

    def planned(self, parts: list[Part]) -> None:  # noqa: B027 - most sources need none
        """Take note of the parts that will be read: these, or those that an earlier try found."""

    def following(self, part: Part) -> Part | None:
        """Return the part after one that was just read, where :meth:`parts` could not know it."""
        return None

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of the source beside its address."""
        return {}

    def attachments(self) -> dict[str, bytes]:
        """Return files that lie beside the dataset's rows, by name."""
        return {}

    def close(self) -> None:  # noqa: B027 - nor this
        """Let go of connections."""


@dataclass
class Gathered:
    """All rows of a source, on disk.

    Attributes:
        segments: Files with rows, in order.
        names: The source's columns, those that are dropped as personal among them.
    """

    segments: list[Segment] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, segments: list[Segment], names: list[str]) -> None:
        """Add the rows of a part."""
        self.segments += segments
        self.names += [name for name in names if name not in self.names]


def gather(source: RowSource, config: IngestConfig, context: StepContext) -> Gathered:
    """Read all parts of a source, those that an earlier try has read left out.

    Raises:
        DataError: the source is not there, or its values do not fit.
        Unavailable: its server does not answer, after a few tries.
    """
    asked = config.model_dump(mode="json", exclude={"connection"})
    kept = _KeptParts(context, digest_json([source.shown, source.begins, asked]))
    parts = kept.plan(lambda: retried(source.parts, context))
    source.planned(parts)
    reading = _Reading(source, config, context, kept, Meter(context), len(parts))
    found: dict[str, _Read] = {}
    while parts:
        following: list[Part] = []
        for part, read in zip(parts, _all(reading.part, parts, source.parallel), strict=True):
            found[part.name] = read
            following += [read.next] if read.next else []
        parts = following
    gathered = Gathered()
    for name in sorted(found):
        gathered.add(found[name].segments, found[name].names)
    kept.forget()
    _check_personal(config, gathered.names, source.shown)
    return gathered


def _all(action: Callable[[Part], _Read], parts: list[Part], parallel: int) -> list[_Read]:
    """Read parts, several at a time; the first fault lets the others end and begins no further one."""
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        try:
            return list(pool.map(action, parts))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check_personal(config: IngestConfig, names: list[str], where: str) -> None:
    """Refuse a personal column that is not there: misspelt, it would be stored as it is."""
    missing = _absent(config, names)
    if missing and names:
        raise DataError(
            f"there is no column {missing[0]!r} (personal)", where=where, hint=f"columns are: {', '.join(names)}"
        )


def _absent(config: IngestConfig, names: list[str]) -> list[str]:
    """Return the personal columns that should be among some and are not."""
    chosen = config.columns
    return [name for name in config.personal if name not in names and (chosen is None or name in chosen)]


@dataclass
class _Read:
    segments: list[Segment]
    names: list[str]
    next: Part | None


class _KeptParts:
    """Parts that were read, in the artifact store beside the run's result, until all of them are."""

    def __init__(self, context: StepContext, digest: str) -> None:
        self._store, self._scratch = context.store, context.scratch
        self._place = f"{context.request.identity.key}/parts"
        self._base = f"{self._place}/{digest[:16]}"

    def plan(self, make: Callable[[], list[Part]]) -> list[Part]:
        """Return the parts as the first try found them: their ranges must not move between tries."""
        kept = self._store.read_json(f"{self._base}/plan.json")
        if kept is None:
            parts = make()
            kept = [{"name": part.name, "at": part.at} for part in parts]
            if len(parts) > 1:
                self._store.write_json(f"{self._base}/plan.json", kept)
        return [Part(**part) for part in kept]

    def load(self, part: Part, folder: Path) -> _Read | None:
        """Return a part that an earlier try has read."""
        document = self._store.read_json(f"{self._base}/{part.name}.json")
        if document is None:
            return None
        segments = []
        for number in range(document["files"]):
            target = folder / f"{part.name}.{number}.parquet"
            found = self._store.get_file(f"{self._base}/{target.name}", self._scratch)
            if found is None:
                return None
            target.write_bytes(found.read_bytes())
            segments.append(Segment(target))
        return _Read(segments, document["names"], Part(**document["next"]) if document["next"] else None)

    def keep(self, part: Part, read: _Read) -> None:
        """Keep a part; its marker comes last."""
        for segment in read.segments:
            self._store.put_file(f"{self._base}/{segment.path.name}", segment.path)
        following = {"name": read.next.name, "at": read.next.at} if read.next else None
        document = {"files": len(read.segments), "names": read.names, "next": following}
        self._store.write_json(f"{self._base}/{part.name}.json", document)

    def forget(self) -> None:
        """Remove all parts: they are whole, and the dataset will hold them."""
        self._store.delete(self._place)


class _Reading:
    """Reads single parts, in any thread."""

    def __init__(
        self, source: RowSource, config: IngestConfig, context: StepContext, kept: _KeptParts, meter: Meter, parts: int
    ) -> None:
        self._source, self._config, self._context, self._kept, self._meter = source, config, context, kept, meter
        self._parts = parts
        self._folder = context.folder(f"rows-{digest_json(source.shown)[:8]}")
        self._protector = Protector.of(config, source.shown)

    def part(self, part: Part) -> _Read:
        known = self._kept.load(part, self._folder)
        if known is not None:
            self._context.note("part %s was read by an earlier try", part.name)
            return known
        once = self._source.tries_itself
        segments, names = self._read(part) if once else retried(lambda: self._read(part), self._context)
        read = _Read(segments, names, self._source.following(part))
        if (self._parts > 1 or read.next is not None) and not _absent(self._config, names):
            self._kept.keep(part, read)
        return read

    def _read(self, part: Part) -> tuple[list[Segment], list[str]]:
        writer = SegmentWriter(self._folder, part.name, self._source.shown)
        names: list[str] = []
        what = f"part {int(part.name) + 1} of {self._parts}" if self._parts > 1 else ""
        try:
            for batch in self._source.read(part):
                names += [name for name in batch.schema.names if name not in names]
                writer.write(batch if self._protector is None else self._protector.batch(batch))
                self._meter.add(batch.num_rows, batch.nbytes, what)
        finally:
            writer.close()
        return writer.segments, names


class TryLater(Unavailable):
    """A server says when to ask again.

    Args:
        message: What it said.
        where: The address.
        after: Seconds.
    """

    def __init__(self, message: str, *, where: str, after: float) -> None:
        super().__init__(message, where=where)
        self.after = after


def retried(action: Callable[[], T], context: StepContext) -> T:
    """Return what an action returns; try again where a server does not answer.

    Raises:
        Unavailable: the last try failed too.
    """
    for attempt in range(1, _TRIES):
        try:
            return action()
        except Unavailable as error:
            context.note("try %d of %d failed, trying again: %s", attempt, _TRIES, error)
            time.sleep(error.after if isinstance(error, TryLater) else 0.5 * 2**attempt)
    return action()
