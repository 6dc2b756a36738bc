"""The fleet: what each node said last, kept in the artifact store by a sink that reads the nodes' reports from Kafka.

::

    fleet/nodes/<node>.json     the node's last state: version, since when, last report, what went wrong

Reports come at least once and may come again: of one boot the higher sequence counts, and a boot that ended does not
come back. Offsets are committed after the states of a round are written, and writing a state again changes nothing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.errors import Unavailable
from edgewright.streams.batches import file_name

FORMAT = "edgewright.edge-report/1"
PREFIX = "fleet/nodes"
_ROUND = 500
_POLL = 0.5
_ANSWERS = 15.0
#: Boots of a node that are remembered as ended.
_BOOTS = 20
_KEPT = (
    "edgewright",
    "model",
    "previous",
    "problem",
    "requests",
    "rows",
    "faults",
    "failures",
    "latency_us",
    "dropped",
)


@dataclass
class FleetCounts:
    """What a sink has done.

    Attributes:
        reports: Reports that changed a node's state.
        repeated: Reports that were known or older.
        unreadable: Messages that were no reports.
    """

    reports: int = 0
    repeated: int = 0
    unreadable: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return it as a document."""
        return asdict(self)


class Fleet:
    """The states of all nodes.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store

    def nodes(self) -> list[dict[str, Any]]:
        """Return the state of each node, by name."""
        found = [self.store.read_json(key) for key in self.store.list_keys(PREFIX) if key.endswith(".json")]
        return sorted((one for one in found if isinstance(one, dict)), key=lambda one: str(one["node"]))

    def take(self, report: Mapping[str, Any], received: str) -> bool:
        """Keep what a report says; return whether it was news.

        Args:
            report: The report.
            received: ISO time of its message.
        """
        key = f"{PREFIX}/{file_name(str(report['node']))}.json"
        before = self.store.read_json(key) or {}
        boot, sequence = str(report["boot"]), int(report["sequence"])
        ended = list(before.get("ended", []))
        if before:
            if boot in ended or (boot == before["boot"] and sequence <= before["sequence"]):
                return False
            if boot != before["boot"]:
                ended = [*ended, before["boot"]][-_BOOTS:]
        document = {
            "node": str(report["node"]), "boot": boot, "sequence": sequence, "ended": ended, "last_report": received,
            "seen": _first_seen(before, report, received), "clock": str(report.get("time") or ""),
            **{name: report.get(name) for name in _KEPT},
        }  # fmt: skip
        self.store.write_json(key, document)
        return True


def _first_seen(before: Mapping[str, Any], report: Mapping[str, Any], received: str) -> str:
    """Return when the first report with this version came: a node's own clock may be wrong."""
    same = before.get("model") and report.get("model") and _version(before["model"]) == _version(report["model"])
    return str(before["seen"]) if same else received


def _version(model: Mapping[str, Any]) -> tuple[Any, ...]:
    return model.get("name"), model.get("version"), model.get("target")


def read_report(value: bytes | None) -> dict[str, Any] | None:
    """Return a report, or ``None`` where a message is none."""
    try:
        report = json.loads(value or b"")
        if report["format"] != FORMAT or not report["node"] or not isinstance(report["sequence"], int):
            return None
        if not isinstance(report["boot"], str) or not isinstance(report["model"], (dict, type(None))):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    return dict(report)


class FleetSink:
    """Reads reports from Kafka into the states.

    Args:
        settings: librdkafka's.
        topics: Where reports come.
        group: Consumer group.
        fleet: Where they go.
        say: Told what goes wrong.
    """

    def __init__(
        self, settings: Mapping[str, Any], topics: Sequence[str], group: str, fleet: Fleet, say: Callable[[str], None]
    ) -> None:
        self._settings, self._topics, self._group, self._fleet, self._say = settings, topics, group, fleet, say
        self._stopping = False
        self.counts = FleetCounts()

    def stop(self) -> None:
        """End after the round under way."""
        self._stopping = True

    def run(self, *, once: bool = False) -> FleetCounts:
        """Read until told to stop; ``once``: until everything is read that is there.

        Raises:
            Unavailable: Kafka does not answer (with ``once``), or the store does not.
        """
        from confluent_kafka import Consumer, KafkaError

        consumer = Consumer(
            {
                "auto.offset.reset": "earliest", **self._settings, "group.id": self._group,
                "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 2,
                "error_cb": lambda error: self._say(f"Kafka: {error.str()}"),
            }
        )  # fmt: skip
        assigned: set[tuple[str, int]] = set()
        ended: set[tuple[str, int]] = set()
        try:
            if once:
                self._demand(consumer)
            consumer.subscribe(
                list(self._topics), on_assign=lambda _, parts: assigned.update((p.topic, p.partition) for p in parts)
            )
            while not self._stopping:
                messages = consumer.consume(_ROUND, _POLL)
                for message in messages:
                    error = message.error()
                    if error is not None and error.code() == KafkaError._PARTITION_EOF:
                        ended.add((message.topic(), message.partition()))
                    elif error is not None:
                        self._say(f"Kafka: {error.str()}")
                self._take(consumer, [message for message in messages if message.error() is None])
                if once and assigned and assigned <= ended:
                    break
        finally:
            consumer.close()
        return self.counts

    def _demand(self, consumer: Any) -> None:
        from confluent_kafka import KafkaException

        try:
            consumer.list_topics(timeout=_ANSWERS)
        except KafkaException as error:
            where = str(self._settings["bootstrap.servers"])
            raise Unavailable("Kafka does not answer", where=where, hint="edgewright dev kafka") from error

    def _take(self, consumer: Any, messages: list[Any]) -> None:
        if not messages:
            return
        from confluent_kafka import KafkaException

        for message in messages:
            report = read_report(message.value())
            if report is None:
                self.counts.unreadable += 1
            elif self._fleet.take(report, _time_of(message)):
                self.counts.reports += 1
            else:
                self.counts.repeated += 1
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:  # read again later, which changes nothing
            self._say(f"Kafka: offsets were not committed: {error.args[0].str()}")


def _time_of(message: Any) -> str:
    """Return a message's time; one that claims to come from the future came now."""
    now = datetime.datetime.now(datetime.UTC)
    said = datetime.datetime.fromtimestamp(max(0, message.timestamp()[1]) / 1000, datetime.UTC)
    return min(now, said).isoformat(timespec="milliseconds")
