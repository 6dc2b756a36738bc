"""Messages that could not be read, read once more."""

from __future__ import annotations

import base64
import json
from typing import Any

from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.messages import Decoder


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


def read_again(log: BatchLog, batch: Batch, format_: str | None = None) -> Batch | None:
    """Make a batch of those messages of a batch that could not be read and can be read now.

    Args:
        log: Where the batch is.
        batch: The batch.
        format_: Format to read them in. Default: the batch's.

    Returns:
        The new batch; ``None`` where none of them can be read, or all were read again before.
    """
    if not batch.rejected:
        return None
    decoder = Decoder(format_ or str(batch.details.get("format", "json")))
    with log.store.open(log.dead_key(batch)) as file:
        received = [decoder.received(_Kept(json.loads(line)), 0) for line in file]
    lines = [message.line for message in received if message.line is not None]
    name = f"{batch.name}-dead"
    if not lines or log.store.read_json(f"{log.prefix}/reread/{name}.json") is not None:
        return None
    key, sha256 = log.write_data(name, b"".join(lines))
    while True:
        positions = log.positions()
        draft = Batch(
            number=0, name=name, kind="kafka", data=key, messages=len(lines), size=sum(map(len, lines)), sha256=sha256,
            positions=positions, details={**batch.details, "dead_letters_of": batch.name},
        )  # fmt: skip
        made = log.append(draft)
        if made is not None:
            log.store.write_json(f"{log.prefix}/reread/{name}.json", {"number": made.number})
            return made
