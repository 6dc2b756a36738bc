"""``source: kafka://TOPIC``: the messages of a topic are scored into another, exactly once per offset.

What was scored and how far the group has read are written in one transaction of Kafka: a worker that is killed leaves
both or neither, and whoever reads with ``isolation.level: read_committed`` sees each message's prediction once. All
runs of a task have the same transactional id, so a run that was thought dead is fenced off as soon as another begins.
A run takes what the topic holds when it begins; what comes later is the next run's.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from edgewright.errors import Busy, DataError, GateResult, Unavailable
from edgewright.spec.steps.score import ScoreConfig
from edgewright.steps.connections import kafka_settings
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.models import load_model
from edgewright.steps.reports import Report, Table
from edgewright.steps.score_model import BATCHES, Candidates, Scorer
from edgewright.steps.score_progress import Progress
from edgewright.steps.score_read import json_block
from edgewright.steps.score_rows import Wanted
from edgewright.steps.score_shard import Tell, answers, ask
from edgewright.streams.kafka import client_settings, producer

#: Messages of one transaction at most, and seconds after which a smaller one is committed.
_MESSAGES = 2_000
#: Seconds that brokers may take to answer, and without any message after which they are taken to be away.
_ANSWER = 30.0
_SILENCE = 60.0


@dataclass(frozen=True)
class Topics:
    """From where to where.

    Attributes:
        source: Topic that is read.
        to: Topic that predictions go to.
        rejected: Topic that messages go to which cannot be scored.
        group: Consumer group that holds how far it is; also the transactional id.
        settings: Of the connection, as librdkafka names them.
        start: Where the first run begins: ``earliest``, ``latest`` or a date.
        keep: Fields of a message that stand beside its prediction.
        model: Name of the model in the output.
        probabilities: Whether each class has a field.
    """

    source: str
    to: str
    rejected: str
    group: str
    settings: dict[str, Any] = field(repr=False)
    start: str
    keep: tuple[str, ...]
    model: str
    probabilities: bool


@dataclass
class Counts:
    """What a run did.

    Attributes:
        rows: Messages that were scored.
        rejected: Messages that could not be.
        lost: Messages that Kafka removed before they were read.
        transactions: How many were committed.
        waiting: Messages that were there when it began.
    """

    rows: int = 0
    rejected: int = 0
    lost: int = 0
    transactions: int = 0
    waiting: int = 0


def score_topic(topics: Topics, scorer: Scorer, tell: Tell, counts: Counts) -> None:
    """Score what a topic holds now.

    Args:
        topics: From where to where.
        scorer: The model.
        tell: Told rows as they are done.
        counts: Filled as it goes.

    Raises:
        DataError: there is no such topic, or the brokers refuse.
        Busy: another run of the same task has begun.
        Unavailable: the brokers do not answer; what is committed stays.
    """
    with _explained(topics), contextlib.closing(_Transactions(topics)) as way:
        # first: a transaction that a killed run left open is ended by this, and so its offsets are settled
        way.begin()
        ends = way.assign(counts)
        _pump(way, ends, topics, scorer, tell, counts)


def _pump(way: _Transactions, ends: dict[int, int], topics: Topics, scorer: Scorer, tell: Tell, counts: Counts) -> None:
    heard = time.monotonic()
    waiting: list[Any] = []
    while ends or waiting:
        for message in way.consumer.consume(_MESSAGES - len(waiting), 0.2) if ends else ():
            heard = time.monotonic()
            if _is_new(message, ends):
                waiting.append(message)
        if waiting and (len(waiting) >= _MESSAGES or not ends or time.monotonic() - heard > 0.1):
            rows, rejected = _score(waiting, topics, scorer, way)
            counts.rows, counts.rejected = counts.rows + rows, counts.rejected + rejected
            counts.transactions += 1
            tell(len(waiting), len(waiting))
            waiting = []
        if time.monotonic() - heard > _SILENCE:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, f"nothing came for {_SILENCE:.0f} s"))


def _is_new(message: Any, ends: dict[int, int]) -> bool:
    """Return whether a message is of this run; a partition that is read to its end is taken off the list."""
    error, partition = message.error(), message.partition()
    if error is not None:
        if error.code() == KafkaError._PARTITION_EOF:
            ends.pop(partition, None)  # what is behind it was aborted, or compacted away
        elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            raise KafkaException(error)
        return False
    if partition not in ends:
        return False
    end = ends[partition]
    if message.offset() >= end - 1:
        del ends[partition]
    return bool(message.offset() < end)


def _score(messages: Sequence[Any], topics: Topics, scorer: Scorer, way: _Transactions) -> tuple[int, int]:
    """Score messages and write what came of them in one transaction; return rows and rejected."""
    wanted = Wanted(scorer.document.features, {}, scorer.number)
    block, kept = json_block([message.value() or b"" for message in messages], wanted, topics.keep)
    scored, scores = ask(scorer, block)
    columns = answers(scores, scorer.document.problem, scorer.document.classes, probabilities=topics.probabilities)
    rows = pa.table(columns).to_pylist() if columns else []
    way.producer.begin_transaction()
    try:
        for place, row in zip(scored.rows.tolist(), rows, strict=True):
            found = messages[place]
            document = {
                "topic": found.topic(), "partition": found.partition(), "offset": found.offset(), **kept[place], **row,
                "model": topics.model,
            }  # fmt: skip
            way.send(topics.to, json.dumps(document, ensure_ascii=False).encode(), found.key())
        for bad in scored.bad:
            found = messages[bad.row]
            place = f"{found.topic()}/{found.partition()}"
            headers = {"reason": "; ".join(bad.reasons), "place": place, "offset": str(found.offset())}
            way.send(topics.rejected, found.value(), found.key(), headers)
        way.commit(messages)
    except BaseException:
        with contextlib.suppress(KafkaException):
            way.producer.abort_transaction(_ANSWER)
        raise
    return len(scored.rows), len(scored.bad)


class _Transactions:
    """Consumer and producer of one run."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        own = client_settings(topics.settings)
        self.producer = producer({**own, "transactional.id": topics.group, "linger.ms": 20, "log_level": 2})
        self.consumer = Consumer({
            **own, "group.id": topics.group, "enable.auto.commit": False, "isolation.level": "read_committed",
            "enable.partition.eof": True, "auto.offset.reset": "earliest", "log_level": 2,
        })  # fmt: skip

    def close(self) -> None:
        """Let go of the brokers."""
        self.consumer.close()
        with contextlib.suppress(KafkaException):  # one that was fenced off says so again
            self.producer.close(0)

    def begin(self) -> None:
        """Fence off every other run of the task, and end what it left open."""
        self.producer.init_transactions(_ANSWER)

    def assign(self, counts: Counts) -> dict[int, int]:
        """Read from where the last run has got to; return where each partition ends now."""
        name = self._topics.source
        found = self.consumer.list_topics(name, timeout=_ANSWER).topics[name]
        if found.error is not None:
            if found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(found.error)
            raise DataError("there is no such topic", where=f"kafka://{name}",
                            hint="the connection's login may not be allowed to see it")  # fmt: skip
        partitions = [TopicPartition(name, number) for number in sorted(found.partitions)]
        ends: dict[int, int] = {}
        begins = []
        for known in self.consumer.committed(partitions, timeout=_ANSWER):
            low, high = self.consumer.get_watermark_offsets(known, timeout=_ANSWER)
            first = known.offset if known.offset >= 0 else self._first(known, low, high)
            counts.lost += max(0, low - first)
            first = max(low, first)
            if first < high:
                ends[known.partition] = high
                begins.append(TopicPartition(name, known.partition, first))
                counts.waiting += high - first
        self.consumer.assign(begins)
        return ends

    def _first(self, partition: TopicPartition, low: int, high: int) -> int:
        start = self._topics.start
        if start in ("earliest", "latest"):
            return low if start == "earliest" else high
        at = datetime.datetime.fromisoformat(start)
        at = at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
        asked = TopicPartition(partition.topic, partition.partition, int(at.timestamp() * 1000))
        (found,) = self.consumer.offsets_for_times([asked], timeout=_ANSWER)
        if found.offset in (OFFSET_INVALID, OFFSET_BEGINNING) or found.offset < 0:
            return high
        return int(found.offset)

    def send(self, topic: str, value: Any, key: Any, headers: Any = None) -> None:
        """Put one message into the transaction."""
        while True:
            try:
                self.producer.produce(topic, value, key, headers=headers)
                return
            except BufferError:
                self.producer.poll(0.1)  # its queue is full

    def commit(self, messages: Sequence[Any]) -> None:
        """Write how far it is with the predictions, all or nothing."""
        reached: dict[int, int] = {}
        for message in messages:
            reached[message.partition()] = message.offset() + 1
        offsets = [TopicPartition(self._topics.source, number, offset) for number, offset in reached.items()]
        self.producer.send_offsets_to_transaction(offsets, self.consumer.consumer_group_metadata(), _ANSWER)
        while True:
            try:
                self.producer.commit_transaction(_ANSWER)
                return
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise


@contextlib.contextmanager
def _explained(topics: Topics) -> Iterator[None]:
    where = f"kafka://{topics.source}"
    try:
        yield
    except KafkaException as error:
        said = error.args[0]
        if said.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED):
            raise Busy("another run of this task scores the topic now", where=where) from error
        refused = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
                   KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART,
                   KafkaError._AUTHENTICATION)  # fmt: skip
        if said.code() in refused:
            raise DataError(f"Kafka refuses: {said.str()}", where=where) from error
        raise Unavailable(f"Kafka does not answer: {said.str()}", where=where,
                          hint="what was committed stays; the next try goes on") from error  # fmt: skip


# -- the step --------------------------------------------------------------------------------------------------------


def run_topic(config: ScoreConfig, context: StepContext, found: Candidates, progress: Progress) -> StepOutput:
    """Score a topic as a step.

    Raises:
        DataError: there is no such topic, or the brokers refuse.
        Busy: another run of the same task has begun.
        Unavailable: the brokers do not answer.
    """
    engine = "onnx" if "onnx" in found.folders else "native"
    scorer = Scorer(load_model(found.folders[engine]), BATCHES[0])
    topics, counts = _topics(config, context, found.name), Counts()
    started = time.monotonic()

    def tell(rows: int, size: int) -> None:
        if not progress.total:
            progress.begin(counts.waiting, 1, 1)
        progress(rows, size)

    score_topic(topics, scorer, tell, counts)
    progress.end()
    return _output(topics, counts, config, context, engine, time.monotonic() - started)


def _topics(config: ScoreConfig, context: StepContext, model: str) -> Topics:
    identity = context.request.identity
    to = str(config.to).removeprefix("kafka://")
    return Topics(
        config.sources[0].removeprefix("kafka://"), to, config.dead_letters or f"{to}.rejected",
        f"edgewright-score-{identity.dag_id}-{identity.task_id}", kafka_settings(config.connection or "kafka_default"),
        config.start, tuple(config.keep), model, config.probabilities,
    )  # fmt: skip


def _output(
    topics: Topics, counts: Counts, config: ScoreConfig, context: StepContext, engine: str, seconds: float
) -> StepOutput:
    total = counts.rows + counts.rejected
    share = counts.rejected / max(1, total)
    gate = GateResult("rejected", "<=", config.max_rejected, share, share <= config.max_rejected,
                      f"{counts.rejected:,} messages")  # fmt: skip
    notes = [f"{counts.rows:,} messages scored into {topics.to}, {counts.rejected:,} sent to {topics.rejected}"]
    if counts.lost:
        notes.append(f"{counts.lost:,} messages were removed by Kafka's retention before they were scored")
    folder = context.folder("report")
    rows = [("scored", counts.rows, topics.to), ("could not be scored", counts.rejected, topics.rejected),
            ("removed before", counts.lost, "")]  # fmt: skip
    report = Report(
        f"{context.request.identity.dag_id}: predictions", f"kafka://{topics.source} by {topics.model}", gates=[gate],
        tables=[Table("Messages", ("", "messages", "topic"), rows)], data={**vars(counts), "model": topics.model},
    )  # fmt: skip
    report.write(folder)
    ref = context.put(folder, "report", {"page": "report.html", "rows": counts.rows, "rejected": counts.rejected})
    metrics = {
        "rows": float(counts.rows), "rejected": float(counts.rejected), "lost": float(counts.lost),
        "transactions": float(counts.transactions), "rows_per_second": total / max(seconds, 1e-3),
        "shards_reused": 0.0,
    }  # fmt: skip
    tags = {"predictions": f"kafka://{topics.to}", "model": topics.model, "engine": engine}
    return StepOutput({"report": ref}, metrics, tags, [gate], notes)
