"""The fleet: what each node said last, kept in the artifact store by a sink that reads the nodes' reports from Kafka.

::

    fleet/nodes/<node>.json     the node's last state: version, since when, last report, what went wrong

Reports come at least once and may come again: of one boot the higher sequence counts, and a boot that ended does not
come back. Offsets are committed after the states of a round are written, and writing a state again changes nothing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from edgewright.artifacts import ArtifactStore
from edgewright.errors import NotFound, Unavailable
from edgewright.streams.batches import file_name

FORMAT = "edgewright.edge-report/1"
PREFIX = "fleet/nodes"
_ROUND = 500
_POLL = 0.5
_ANSWERS = 15.0
_AT_ONCE = 16
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
    "values",
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
        keys = [key for key in self.store.list_keys(PREFIX) if key.endswith(".json")]
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # one request a node, where the store is a bucket
            found = [one for one in pool.map(self.store.read_json, keys) if isinstance(one, dict)]
        return sorted(found, key=lambda one: str(one["node"]))

    def take(self, reports: Iterable[tuple[Mapping[str, Any], str]]) -> int:
        """Keep what reports say; return how many were news.

        Args:
            reports: Each with the ISO time of its message, in the order in which they came.
        """
        states: dict[str, dict[str, Any]] = {}
        changed: set[str] = set()
        news = 0
        for report, received in reports:
            key = f"{PREFIX}/{file_name(str(report['node']))}.json"
            if key not in states:
                states[key] = self.store.read_json(key) or {}
            if _is_news(states[key], report):
                states[key] = _state(states[key], report, received)
                changed.add(key)
                news += 1
        for key in sorted(changed):
            self.store.write_json(key, states[key])
        return news


def _is_news(before: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    if not before:
        return True
    if report["boot"] == before["boot"]:
        return bool(report["sequence"] > before["sequence"])
    return report["boot"] not in before["ended"]


def _state(before: Mapping[str, Any], report: Mapping[str, Any], received: str) -> dict[str, Any]:
    ended = list(before.get("ended", []))
    if before and report["boot"] != before["boot"]:
        ended = [*ended, before["boot"]][-_BOOTS:]
    return {
        "node": str(report["node"]), "boot": report["boot"], "sequence": report["sequence"], "ended": ended,
        "last_report": received, "seen": _first_seen(before, report, received), "clock": str(report.get("time") or ""),
        **{name: report.get(name) for name in _KEPT},
    }  # fmt: skip


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


class Rows(Protocol):
    """Copies of the states for people to look at elsewhere."""

    def note(self) -> None:
        """Remember that a state changed."""

    def write(self, *, now: bool = False) -> int:
        """Write what changed, unless it was done a moment ago (``now``: in any case)."""


class FleetSink:
    """Reads reports from Kafka into the states.

    Args:
        settings: librdkafka's.
        topics: Where reports come.
        group: Consumer group.
        fleet: Where they go.
        say: Told what goes wrong.
        rows: Copies of the states elsewhere, such as in the registry.
    """

    def __init__(
        self, settings: Mapping[str, Any], topics: Sequence[str], group: str, fleet: Fleet, say: Callable[[str], None],
        rows: Rows | None = None,
    ) -> None:  # fmt: skip
        self._settings, self._topics, self._group, self._fleet, self._say = settings, topics, group, fleet, say
        self._rows = rows
        self._stopping = False
        self._assigned: set[tuple[str, int]] | None = None
        self.counts = FleetCounts()

    def stop(self) -> None:
        """End after the round under way."""
        self._stopping = True

    def run(self, *, once: bool = False) -> FleetCounts:
        """Read until told to stop; ``once``: until everything is read that is there.

        Raises:
            NotFound: with ``once``, a topic is not there.
            Unavailable: Kafka does not answer (with ``once``), or the store does not.
        """
        from confluent_kafka import Consumer

        consumer = Consumer(
            {
                "auto.offset.reset": "earliest", **self._settings, "group.id": self._group,
                "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 2,
                "error_cb": lambda error: self._say(f"Kafka: {error.str()}"),
            }
        )  # fmt: skip
        try:
            unread = self._unread(consumer) if once else {}
            consumer.subscribe(list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke)
            while not self._stopping:
                self._round(consumer, unread)
                if self._rows is not None:
                    self._rows.write()
                if once and self._assigned is not None and not self._assigned & unread.keys():
                    break
        finally:
            consumer.close()
        if self._rows is not None:
            self._rows.write(now=True)
        return self.counts

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        self._assigned = {(p.topic, p.partition) for p in partitions}

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        self._assigned = None

    def _unread(self, consumer: Any) -> dict[tuple[str, int], int]:
        """Return where each partition ends now: nodes go on reporting, so the end itself may never be met."""
        from confluent_kafka import KafkaException, TopicPartition

        try:
            there = consumer.list_topics(timeout=_ANSWERS).topics
            places = [(name, number) for name in self._topics if name in there for number in there[name].partitions]
            ends = {place: consumer.get_watermark_offsets(TopicPartition(*place), _ANSWERS)[1] for place in places}
        except KafkaException as error:
            where = str(self._settings["bootstrap.servers"])
            raise Unavailable("Kafka does not answer", where=where, hint="edgewright dev kafka") from error
        absent = [name for name in self._topics if name not in there]
        if absent:
            raise NotFound(f"there is no topic {absent[0]}", hint=f"there are: {', '.join(sorted(there)) or 'none'}")
        return ends

    def _round(self, consumer: Any, unread: dict[tuple[str, int], int]) -> None:
        from confluent_kafka import KafkaError

        messages = []
        for message in consumer.consume(_ROUND, _POLL):
            error, place = message.error(), (message.topic(), message.partition())
            if error is None:
                messages.append(message)
            elif error.code() != KafkaError._PARTITION_EOF:
                self._say(f"Kafka: {error.str()}")
                continue
            if error is not None or message.offset() >= unread.get(place, 0) - 1:
                unread.pop(place, None)
        self._take(consumer, messages)

    def _take(self, consumer: Any, messages: list[Any]) -> None:
        if not messages:
            return
        from confluent_kafka import KafkaException

        found = [(read_report(message.value()), _time_of(message)) for message in messages]
        reports = [(report, received) for report, received in found if report is not None]
        news = self._fleet.take(reports)
        if news and self._rows is not None:
            self._rows.note()
        self.counts.reports += news
        self.counts.repeated += len(reports) - news
        self.counts.unreadable += len(messages) - len(reports)
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:  # read again later, which changes nothing
            self._say(f"Kafka: offsets were not committed: {error.args[0].str()}")


def _time_of(message: Any) -> str:
    """Return a message's time; one that claims to come from the future came now."""
    now = datetime.datetime.now(datetime.UTC)
    said = datetime.datetime.fromtimestamp(max(0, message.timestamp()[1]) / 1000, datetime.UTC)
    return min(now, said).isoformat(timespec="milliseconds")
