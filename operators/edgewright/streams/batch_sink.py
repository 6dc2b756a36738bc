"""The batches of a run into Cassandra: the rows are those that ``edgewright sink cassandra`` makes of its messages.

A run that is tried again writes the same rows again, so each message is stored once. What cannot be stored goes to a
topic of dead letters with the reason, after everything else is stored.
"""

from __future__ import annotations

import base64
import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, DataError
from edgewright.streams.batches import Batch, open_data
from edgewright.streams.cassandra import Row, Writer
from edgewright.streams.sink import ROUND, Fields, Progress, row_of_object

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
#: Sends dead letters, as :func:`edgewright.streams.dead_letters.send_dead` does.
Send = Callable[[Sequence[dict[str, Any]]], None]


class _Line:
    """A line of a batch, with what a row asks of a message; one of a file has the time at which its batch was made."""

    def __init__(self, line: bytes, batch: Batch) -> None:
        self.size = len(line)
        document = _decode(line)
        self._value = document["value"]
        self._place = str(document.get("topic", batch.name)), int(document.get("partition", 0)), int(document["offset"])
        made = datetime.datetime.fromisoformat(batch.created).timestamp() * 1000
        self._timestamp = int(document.get("timestamp") or made)

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._place[2]

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp

    def __len__(self) -> int:
        return self.size

    def row(self, fields: Fields) -> Row:
        """Return the row that it stands for.

        Raises:
            DataError: it is none.
        """
        if not isinstance(self._value, dict):
            raise DataError(f"expected a JSON object, got {type(self._value).__name__}")
        return row_of_object(self._value, self, fields)

    def dead_entry(self, reason: str) -> dict[str, Any]:
        """Return it as a dead letter."""
        topic, partition, offset = self._place
        return {
            "topic": topic, "partition": partition, "offset": offset, "timestamp": self._timestamp, "reason": reason,
            "payload": base64.b64encode(_encode(self._value)).decode(),
        }  # fmt: skip


def store_batches(
    store: ArtifactStore, batches: Sequence[Batch], writer: Writer, fields: Fields, send: Send | None = None
) -> Progress:
    """Store the messages of some batches.

    Args:
        store: Where the batches are kept.
        batches: The batches.
        writer: Where rows go.
        fields: What the fields of messages mean.
        send: Sends what cannot be stored; without it such a message is a fault, once the others are stored.

    Raises:
        ConfigError: a batch has no messages but something else.
        DataError: a message cannot be stored, and there is nowhere to send it.
    """
    other = next((batch for batch in batches if batch.kind not in ("kafka", "file")), None)
    if other is not None:
        raise ConfigError(f"{other.name} is a batch of {other.kind}: only messages can be stored", where="triggers")
    progress, began = Progress(), time.monotonic()
    first: tuple[_Line, str] | None = None
    found = _lines(store, batches)
    while lines := list(islice(found, ROUND)):
        refused = _store(lines, writer, fields, progress)
        if refused and send is not None:
            send([line.dead_entry(reason) for line, reason in refused])
        first = first or next(iter(refused), None)
    progress.seconds = time.monotonic() - began
    if first is not None and send is None:
        line, reason = first
        raise DataError(
            f"{progress.rejected} of {progress.messages} messages cannot be stored, the first because: {reason}",
            where=f"{line.topic()}/{line.partition()}/{line.offset()}",
            hint="dead_letters: TOPIC sets such messages aside",
        )
    return progress


def _lines(store: ArtifactStore, batches: Sequence[Batch]) -> Iterator[_Line]:
    for batch in batches:
        with open_data(store, batch) as file:
            for line in file:
                yield _Line(line, batch)


def _store(lines: Sequence[_Line], writer: Writer, fields: Fields, progress: Progress) -> list[tuple[_Line, str]]:
    rows: list[Row] = []
    refused: list[tuple[_Line, str]] = []
    for line in lines:
        try:
            rows.append(line.row(fields))
        except DataError as error:
            refused.append((line, error.message))
    refused += [(entry.row.source, entry.reason) for entry in writer.write(rows)]
    progress.messages += len(lines)
    progress.rejected += len(refused)
    progress.rows += len(lines) - len(refused) - writer.forgotten
    for _, reason in refused:
        progress.refuse(reason)
    return refused
