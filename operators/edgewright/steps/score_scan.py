"""Where the records of a text file begin: one pass over its bytes, in parallel, right for quoted line ends too.

Whether a byte stands between quotation marks follows from all marks before it, so no range can tell alone. Each range
is therefore looked at under both assumptions, and the marks counted before it say afterwards which one held. The same
pass counts records, which gives every row its number in the file whatever the sharding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from edgewright.errors import DataError

_PIECE = 4 << 20
_NEWLINE, _QUOTE = 10, 34


@dataclass
class Seen:
    """What a range of bytes holds, under the assumptions that it begins outside (0) and inside (1) of quotes.

    Attributes:
        quotes: Quotation marks.
        ends: Line ends outside of quotes.
        first: Offset in the file after the first of them; ``None`` where there is none.
    """

    quotes: int = 0
    ends: list[int] = field(default_factory=lambda: [0, 0])
    first: list[int | None] = field(default_factory=lambda: [None, None])
    last_byte: int = _NEWLINE


@dataclass(frozen=True)
class Cut:
    """A range of whole records.

    Attributes:
        start: First byte.
        stop: Byte after the last.
        first_row: Number of its first record in the file, counted from 1.
        rows: How many records.
    """

    start: int
    stop: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class Scan:
    """A file's cuts, and whether quotes matter when it is read.

    Attributes:
        cuts: Ranges of whole records, in order.
        rows: Records in all, empty lines included.
        quotes: Whether there are quotation marks at all.
        folded: Whether line ends stand inside of quotes.
    """

    cuts: list[Cut]
    rows: int
    quotes: bool
    folded: bool


def scan(
    opened: Callable[[], IO[bytes]], start: int, size: int, cut_bytes: int, *, quotes: bool, threads: int, where: str
) -> Scan:
    """Cut the records of a file into ranges of about the same size.

    Args:
        opened: Opens the file.
        start: Where its first record begins, after a header.
        size: Its size in bytes.
        cut_bytes: About how many bytes a range should have.
        quotes: Whether line ends inside of quotation marks end no record.
        threads: How many ranges are looked at at once.
        where: The file, for messages.

    Raises:
        DataError: a quotation mark is never closed.
    """
    edges = [*range(start, size, cut_bytes), size]
    spans = list(itertools.pairwise(edges))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        seen = list(pool.map(lambda span: _look(opened, span[0], span[1], quotes), spans))
    return _cuts(spans, seen, where)


def _look(opened: Callable[[], IO[bytes]], start: int, stop: int, quotes: bool) -> Seen:
    found = Seen()
    with opened() as file:
        file.seek(start)
        at = start
        while at < stop:
            data = file.read(min(_PIECE, stop - at))
            if not data:
                break
            _count(data, at, found, quotes)
            at += len(data)
            found.last_byte = data[-1]
    return found


def _count(data: bytes, at: int, found: Seen, quotes: bool) -> None:
    if not quotes or b'"' not in data:
        outside = found.quotes & 1  # the assumption under which this piece is outside of quotes
        found.ends[outside] += data.count(b"\n")
        _note_first(found, outside, at, data.find(b"\n"))
        if not quotes:
            found.ends[1], found.first[1] = found.ends[0], found.first[0]
        return
    array = np.frombuffer(data, dtype=np.uint8)
    places, before, marks = line_ends(array, array == _NEWLINE)
    inside = (before + found.quotes) & 1
    for assumed in (0, 1):
        free = places[inside == assumed]
        found.ends[assumed] += len(free)
        _note_first(found, assumed, at, int(free[0]) if len(free) else -1)
    found.quotes += marks


def line_ends(
    array: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Return where line ends are, how many quotation marks stand before each, and how many there are in all."""
    places, marks = np.flatnonzero(ends), np.flatnonzero(array == _QUOTE)
    return places, np.searchsorted(marks, places), len(marks)


def _note_first(found: Seen, assumed: int, at: int, place: int) -> None:
    if place >= 0 and found.first[assumed] is None:
        found.first[assumed] = at + place + 1


def _cuts(spans: Sequence[tuple[int, int]], seen: Sequence[Seen], where: str) -> Scan:
    marks, row = 0, 1
    begins: list[tuple[int, int]] = []  # offset and number of the first record of each cut
    folded = False
    for (start, _), one in zip(spans, seen, strict=True):
        assumed = marks & 1
        first = one.first[assumed]
        if not begins:
            begins.append((start, 1))
        elif first is not None and first < spans[-1][1]:
            begins.append((first, row + 1))
        row += one.ends[assumed]
        folded = folded or (marks + one.quotes > 0 and one.ends[1 - assumed] > 0)
        marks += one.quotes
    if marks & 1:
        raise DataError(
            "a quotation mark is never closed",
            where=where,
            hint="mend the file; or say quotes: false if marks in it are ordinary characters",
        )
    if not spans:
        return Scan([], 0, False, False)
    rows = row - 1 + (seen[-1].last_byte != _NEWLINE)
    limits = [*begins[1:], (spans[-1][1], rows + 1)]
    cuts = [
        Cut(start, stop, number, following - number)
        for (start, number), (stop, following) in zip(begins, limits, strict=True)
        if stop > start
    ]
    return Scan(cuts, rows, marks > 0, folded)
