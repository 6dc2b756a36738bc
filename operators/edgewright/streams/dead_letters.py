"""Messages that could not be taken: sent to their topic, and read once more."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from edgewright.errors import Unavailable
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.messages import Decoder

#: Who refused a message that could be read.
SCHEMA = "schema"


def send_dead(producer: Any, topic: str, entries: Iterable[Mapping[str, Any]], timeout: float = 10.0) -> None:
    """Send what cannot be taken to its topic, and wait until the broker has it: at least once.

    Args:
        producer: A producer of confluent-kafka.
        topic: Where to.
        entries: As :func:`~edgewright.streams.messages.dead_entry` makes them.
        timeout: Seconds that the broker may take.

    Raises:
        Unavailable: it did not take them.
    """
    failed: list[str] = []
    for entry in entries:
        place = f"{entry['topic']}/{entry['partition']}"
        headers = {"reason": entry["reason"], "place": place, "offset": str(entry["offset"])}
        producer.produce(
            topic, base64.b64decode(entry["payload"]), headers=headers,
            on_delivery=lambda error, _: failed.append(error.str()) if error is not None else None,
        )  # fmt: skip
    if producer.flush(timeout) or failed:
        raise Unavailable(f"the dead letters were not taken: {failed[0] if failed else 'no answer'}", where=topic)


class _Kept:
    """A message as it was kept, with the interface of confluent-kafka's."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self._entry = entry

    def topic(self) -> str:
        return str(self._entry["topic"])

    def partition(self) -> int:
        return int(self._entry["partition"])

    def offset(self) -> int:
        return int(self._entry["offset"])

    def timestamp(self) -> tuple[int, int]:
        return 1, int(self._entry["timestamp"])

    def value(self) -> bytes:
        return base64.b64decode(self._entry["payload"])

    def key(self) -> None:
        return None

    def headers(self) -> None:
        return None


def read_again(
    log: BatchLog, batch: Batch, format_: str | None = None, settings: Mapping[str, Any] | None = None
) -> Batch | None:
    """Make a batch of those messages of a batch that could not be read and can be read now.

    Args:
        log: Where the batch is.
        batch: The batch.
        format_: Format to read them in. Default: the batch's.
        settings: Of the connection, for Avro.

    Returns:
        The new batch; ``None`` where none of them can be read, or all were read again before.
    """
    if not batch.rejected:
        return None
    decoder = Decoder(format_ or str(batch.details.get("format", "json")), settings=settings)
    by_schema = Decoder("json")  # what a schema refused was read already
    with log.store.open(log.dead_key(batch)) as file:
        entries = [json.loads(line) for line in file]
    received = [(by_schema if entry.get("by") == SCHEMA else decoder).received(_Kept(entry), 0) for entry in entries]
    lines = [message.line for message in received if message.line is not None]
    name = f"{batch.name}-dead"
    if not lines or log.store.read_json(f"{log.prefix}/reread/{name}.json") is not None:
        return None
    key, sha256 = log.write_data(name, b"".join(lines))
    details = {name: value for name, value in batch.details.items() if name not in (SCHEMA, "invalid")}
    while True:
        positions = log.positions()
        draft = Batch(
            number=0, name=name, kind="kafka", data=key, messages=len(lines), size=sum(map(len, lines)), sha256=sha256,
            positions=positions, details={**details, "dead_letters_of": batch.name},
        )  # fmt: skip
        made = log.append(draft)
        if made is not None:
            log.store.write_json(f"{log.prefix}/reread/{name}.json", {"number": made.number})
            return made
