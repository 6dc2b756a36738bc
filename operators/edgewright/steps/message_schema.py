"""``schema:`` of a trigger: messages that do not fit go to the dead letters before a run gets their batch.

It is asked in the task that starts the runs, where the user's code may run, and not where messages are received. What
is left of a batch keeps its number, its name and its offsets, and looking at it again changes nothing; so each message
is in one batch or among the dead letters, whatever dies when. ``edgewright events replay --dead`` asks the schema anew.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgewright.errors import DataError
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.dead_letters import SCHEMA

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
#: Messages that are looked at together.
_ROWS = 5000
Send = Callable[[Sequence[Mapping[str, Any]]], None]


class MessageSchema:
    """A pandera schema that is asked about messages. It is loaded when the first batch comes.

    Args:
        entry: Where it is: ``file.py:Name``.
        folder: The pipeline's folder.
        send: Sends dead letters to their topic.
    """

    def __init__(self, entry: str, folder: Path, send: Send = lambda entries: None) -> None:
        self.entry = entry
        self._folder = folder
        self._send = send
        self._schema: Any = None

    def __call__(self, log: BatchLog, batch: Batch) -> Batch:
        """Return what is left of a batch; its other messages are among the dead letters.

        Raises:
            UserCodeError: the schema cannot be loaded, or a check of it raises.
            Unavailable: the broker did not take the dead letters.
        """
        if batch.details.get(SCHEMA) is not None or not batch.messages:
            return batch
        with log.store.open(batch.data) as file:
            lines = file.read().splitlines(keepends=True)
        refused: dict[int, str] = {}
        for first in range(0, len(lines), _ROWS):
            values = [_decode(line)["value"] for line in lines[first : first + _ROWS]]
            refused |= {first + row: reason for row, reason in self.refused(values).items()}
        return self._part(log, batch, lines, refused)

    def refused(self, values: list[dict[str, Any]]) -> dict[int, str]:
        """Return the reasons of those messages that do not fit, by their place."""
        if self._schema is None:
            # only where there is something to look at: whoever reads a pipeline imports neither pandera nor pandas
            self._schema = importlib.import_module("edgewright.steps.schemas").UserSchema(self.entry, self._folder, [])
        frame = importlib.import_module("pandas").DataFrame.from_records(values)
        for name in self._schema.columns:
            if name not in frame:
                frame[name] = None  # what a message lacks is missing, as in ingest
        reasons: dict[int, list[str]] = {}
        try:
            for row, reason in self._schema.failures(frame):
                reasons.setdefault(row, []).append(reason)
        except DataError as error:
            # a message with another field or type spoils a whole frame: find which one it is
            if len(values) == 1:
                return {0: error.message}
            middle = len(values) // 2
            later = self.refused(values[middle:])
            return self.refused(values[:middle]) | {middle + row: reason for row, reason in later.items()}
        return {row: "; ".join(dict.fromkeys(found)) for row, found in reasons.items()}

    def _part(self, log: BatchLog, batch: Batch, lines: list[bytes], refused: Mapping[int, str]) -> Batch:
        """Store both kinds of messages, and last of all what the batch is from now on."""
        details = {**batch.details, SCHEMA: self.entry}
        if not refused:
            return log.replace(dataclasses.replace(batch, details=details))
        dead = [_entry(lines[row], reason) for row, reason in sorted(refused.items())]
        self._send(dead)
        unreadable = [entry for entry in _dead_of(log, batch) if entry.get("by") != SCHEMA]
        kept = b"".join(line for row, line in enumerate(lines) if row not in refused)
        key, _ = log.write_data(f"{batch.name}.valid", kept)
        text = b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in [*unreadable, *dead])
        log.store.write_bytes(log.dead_key(batch), text)
        return log.replace(
            dataclasses.replace(
                batch,
                data=key,
                messages=len(lines) - len(dead),
                rejected=len(unreadable) + len(dead),
                size=len(kept),
                sha256=hashlib.sha256(kept).hexdigest(),
                details={**details, "invalid": len(dead)},
            )
        )


def _entry(line: bytes, reason: str) -> dict[str, Any]:
    """Return a message that was refused, as it is kept."""
    message = _decode(line)
    return {
        "topic": message["topic"], "partition": message["partition"], "offset": message["offset"],
        "timestamp": message["timestamp"], "reason": f"it does not fit: {reason}", "by": SCHEMA,
        "payload": base64.b64encode(_encode(message["value"])).decode(),
    }  # fmt: skip


def _dead_of(log: BatchLog, batch: Batch) -> list[dict[str, Any]]:
    if not batch.rejected:
        return []
    with log.store.open(log.dead_key(batch)) as file:
        return [json.loads(line) for line in file]
