"""Rows of events for ``ingest``: the batches that a run takes, as JSON lines with the columns of the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgewright.artifacts.digest import digest_json
from edgewright.errors import DamagedArtifact, DataError
from edgewright.spec.steps.ingest import KAFKA, IngestConfig
from edgewright.steps.connections import connection_of, kafka_settings
from edgewright.steps.context import StepContext
from edgewright.streams.batches import Batch, BatchLog, current, open_data
from edgewright.streams.pulls import settle_pulls, take_new
from edgewright.streams.takes import Take, batches_of, put_back, take

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
#: The one file of what a ``wait`` hands on: the batch's manifest.
WAIT_MANIFEST = "batch.json"
#: Names of batches that a manifest lists.
_NAMED = 100


@dataclass(frozen=True)
class Events:
    """What a run takes of events.

    Attributes:
        own: Batches that started this run, and those that waited for it.
        grown: Batches of earlier runs.
        pulled: Whether they are the source itself, which the run has pulled by its schedule.
        waited: Whether they are the source itself, which a task before has waited for.
    """

    own: list[Batch] = field(default_factory=list)
    grown: list[Batch] = field(default_factory=list)
    pulled: bool = False
    waited: bool = False

    @classmethod
    def of(cls, config: IngestConfig, context: StepContext) -> Events:
        """Return what the run of a context takes.

        Raises:
            Skipped: another run has taken its batches, or there is nothing new to pull.
        """
        request = context.request
        if config.since_last_run:
            return cls(own=_pull(config, context), pulled=True)
        if config.waited is not None:
            return cls(own=[current(context.store, read_batch(context.fetch(config.waited)))], waited=True)
        if config.on_event == "ignore" or (config.on_event == "replace" and request.batch is None):
            return cls()
        found: Take = take(
            context.store, request.identity.dag_id, request.identity.run_id, request.batch,
            growing=config.on_event == "append",
        )  # fmt: skip
        if found.removed:
            text = "%d batches of earlier runs are missing: edgewright gc removed them before the dataset began to grow"
            context.note(text, found.removed)
        dag_id = request.identity.dag_id
        return cls(batches_of(context.store, dag_id, found.own), batches_of(context.store, dag_id, found.grown))

    @property
    def batches(self) -> list[Batch]:
        """All of them, earlier ones first."""
        return [*self.grown, *self.own]

    @property
    def messages(self) -> int:
        """Messages of all batches."""
        return sum(batch.messages for batch in self.batches)

    def state(self) -> dict[str, Any]:
        """Return what identifies them."""
        return {"own": [batch.sha256 for batch in self.own], "grown": [batch.sha256 for batch in self.grown]}

    def describe(self) -> dict[str, Any]:
        """Return what a dataset's manifest says of them."""
        names = [batch.name for batch in self.batches]
        return {
            "batches": len(names),
            "messages": self.messages,
            "own": [batch.name for batch in self.own][:_NAMED],
            "sha256": digest_json([batch.sha256 for batch in self.batches]),
        } | ({"offsets": self._offsets()} if self.pulled else {})

    def _offsets(self) -> dict[str, list[int]]:
        """Return first and last offset by ``topic/partition``."""
        found: dict[str, list[int]] = {}
        for batch in self.batches:
            for place, (first, last) in batch.ranges.items():
                known = found.setdefault(place, [first, last])
                found[place] = [min(known[0], first), max(known[1], last)]
        return dict(sorted(found.items()))

    def put_back(self, context: StepContext, reason: str) -> None:
        """Let this run's batches wait for the next one."""
        if self.waited:  # the same batch would be too little for the next wait as well
            return
        identity = context.request.identity
        if self.pulled:
            settle_pulls(context.store, identity.dag_id, identity.run_id, success=False, reason=reason)
        else:
            put_back(context.store, identity.dag_id, identity.run_id, reason)

    # -- rows --------------------------------------------------------------------------------------------------

    def write_whole(self, path: Path, context: StepContext) -> Path:
        """Write the payloads as JSON lines, as they came."""
        with path.open("wb") as file:
            for value in self._values(context):
                file.write(_encode(value) + b"\n")
        return path

    def write(self, path: Path, columns: list[tuple[str, str]], context: StepContext) -> Path:
        """Write the payloads as JSON lines.

        Args:
            path: Where to.
            columns: ``(name, type)`` of each column; a field that a message lacks is missing there.
            context: The step.
        """
        whole = [name for name, kind in columns if kind == "integer"]
        with path.open("wb") as file:
            for value in self._values(context):
                row = {name: value.get(name) for name, _ in columns}
                for name in whole:
                    if isinstance(found := row[name], float):
                        row[name] = int(found)  # 63.0 is a whole number, and JSON's writers do not tell
                file.write(_encode(row) + b"\n")
        return path

    def decimal_columns(self, columns: list[tuple[str, str]], context: StepContext) -> list[str]:
        """Return the columns of whole numbers in which events have decimal ones."""
        whole = {name for name, kind in columns if kind == "integer"}
        found: set[str] = set()
        for value in self._values(context):
            found |= {n for n in whole if isinstance(value.get(n), float) and not value[n].is_integer()}
        return sorted(found)

    def objects(self, context: StepContext) -> Iterator[tuple[Path, str]]:
        """Yield the objects of all batches as local files, each with its address.

        What a run took of an object is kept in the store, because a later run may need it when the object is gone.
        An object that was replaced since is left out: its new version is in a batch of its own.
        """
        for batch in self.batches:
            if batch.kind == "objects":
                for value in self._lines(batch, context):
                    path = self._object(value, batch, context)
                    if path is not None:
                        yield path, value["uri"]

    @staticmethod
    def _object(value: dict[str, Any], batch: Batch, context: StepContext) -> Path | None:
        from edgewright.steps.sources import obtain, version_of

        uri = value["uri"]
        digest = digest_json([uri, value["version"], value["size"]])[:32]
        key = f"{batch.data.rpartition('/data/')[0]}/objects/{digest}-{uri.rpartition('/')[2]}"
        kept = context.store.get_file(key, context.scratch)
        if kept is not None:
            return kept
        if version_of(uri, context) != value["version"]:
            context.note("%s was replaced or removed since it was seen, and is left out", uri)
            return None
        # the address of a file is its path, with whatever stands in its name
        path = Path(uri.removeprefix("file://")) if uri.startswith("file://") else obtain(uri, context, digest)
        if path.stat().st_size != value["size"]:
            context.note("%s was replaced while it was read, and is left out", uri)
            return None
        context.store.put_file(key, path)
        return path

    def _values(self, context: StepContext) -> Iterator[dict[str, Any]]:
        for batch in self.batches:
            if batch.kind != "objects":
                yield from self._lines(batch, context)

    @staticmethod
    def _lines(batch: Batch, context: StepContext) -> Iterator[dict[str, Any]]:
        count = 0
        with open_data(context.store, batch) as file:
            for line in file:
                count += 1
                value = _decode(line)["value"]
                if not isinstance(value, dict):
                    raise DataError(f"message {count} is no object", where=batch.name)
                yield value
        if count != batch.messages:
            raise DamagedArtifact(f"it has {count} messages, not {batch.messages}", where=batch.data)


def _pull(config: IngestConfig, context: StepContext) -> list[Batch]:
    """Take what is new in the topic that is the source."""
    identity, topic = context.request.identity, config.address.removeprefix(KAFKA)
    connection = connection_of(context.request.config) or ""
    settings = kafka_settings(connection)

    def fetch(batches: BatchLog, room: int) -> Iterator[Batch]:
        from edgewright.streams.kafka_pull import KafkaPull

        for batch in KafkaPull(topic, config.start, settings, batches, connection).new_batches(room):
            if batch.rejected:
                context.note("%d messages of %s cannot be read: edgewright events show %s %s",
                             batch.rejected, topic, identity.dag_id, batch.name)  # fmt: skip
            yield batch

    return take_new(context.store, identity.dag_id, identity.run_id, topic, config.max_messages, fetch)


def read_batch(folder: Path) -> Batch:
    """Return the batch that a ``wait`` took, from its artifact's folder."""
    return Batch(**_decode((folder / WAIT_MANIFEST).read_bytes()))
