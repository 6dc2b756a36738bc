"""One erasure from beginning to end: who is entered as erased first of all, so that no later run brings them back."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence

from edgewright.artifacts import ArtifactStore, erasures
from edgewright.artifacts.locks import Lease
from edgewright.errors import ConfigError
from edgewright.privacy import remains
from edgewright.privacy.artifacts import ArtifactErasure
from edgewright.privacy.batches import BatchErasure
from edgewright.privacy.findings import Erasure
from edgewright.privacy.journal import Journal
from edgewright.privacy.matcher import Matcher
from edgewright.privacy.predictions import PredictionErasure
from edgewright.streams.addresses import CassandraAddress, KafkaAddress
from edgewright.streams.pseudonyms import KEY_FILE_VARIABLE, KEY_VARIABLE, Pseudonyms, is_pseudonym

Say = Callable[[str], None]


def erase(
    store: ArtifactStore,
    subject: str,
    *,
    tables: Sequence[CassandraAddress] = (),
    topics: Sequence[KafkaAddress] = (),
    dry_run: bool = False,
    pseudonyms: Pseudonyms | None = None,
    say: Say = lambda line: None,
) -> Erasure:
    """Find and remove what is stored of a person; may be repeated, and goes on where a killed one stopped.

    Args:
        store: The artifact store.
        subject: The person's pseudonym.
        tables: Tables of Cassandra to look in.
        topics: Topics of Kafka to look in.
        dry_run: Only look.
        pseudonyms: The key, where it is at hand: finds the person under their name in topics, too.
        say: Told what is done.

    Raises:
        ConfigError: the subject is no pseudonym.
        Busy: another erasure or ``gc`` is at work on the store.
        Unavailable: a server does not answer; what is done is done, and the rest is for the next attempt.
    """
    if not is_pseudonym(subject):
        hint = "edgewright privacy token reads a name from standard input, and prints its pseudonym"
        raise ConfigError("--subject is no pseudonym", hint=hint)  # and is not repeated here: it may be a name
    report = Erasure(subject, dry_run)
    with _alone(store, dry_run):
        if not dry_run:
            report.requested = erasures.remember(store, subject, _now())
        gone = ArtifactErasure(store, report, say).run()
        matcher = Matcher(subject, remains.personal_fields(store), pseudonyms)
        BatchErasure(store, report, matcher, say).run()
        PredictionErasure(store, report, matcher, say).run()
        _erase_tables(store, tables, report, say)
        _erase_topics(store, topics, report, matcher, say)
        remains.add_models(store, gone, report)
        remains.add_documents(store, report)
        report.finished = _now()
        if not dry_run:
            store.write_json(f"{erasures.ROOT}/reports/{subject}.json", report.as_dict())
    return report


@contextlib.contextmanager
def _alone(store: ArtifactStore, dry_run: bool) -> Iterator[None]:
    """Keep others away who remove things: a collector, or a second erasure from the same datasets."""
    if dry_run:
        yield
        return
    with Lease(store, "gc", seconds=6 * 3600).hold(timeout=10):
        yield


def _erase_tables(store: ArtifactStore, tables: Sequence[CassandraAddress], report: Erasure, say: Say) -> None:
    if not tables:
        return
    from edgewright.privacy.tables import TableErasure
    from edgewright.streams.cassandra import Connection

    for address in tables:
        journal = None if report.dry_run else Journal(store, report.subject, address.shown)
        with Connection(address) as session:
            TableErasure(session, address, report, journal).run(say)


def _erase_topics(
    store: ArtifactStore, topics: Sequence[KafkaAddress], report: Erasure, matcher: Matcher, say: Say
) -> None:
    if not topics:
        return
    from edgewright.privacy.topics import TopicErasure

    for address in topics:
        journal = None if report.dry_run else Journal(store, report.subject, address.shown)
        messages = TopicErasure(address, matcher, report, journal).run()
        say(f"{address.shown}: {messages:,} messages found")


def key_at_hand(environ: dict[str, str]) -> Pseudonyms | None:
    """Return the key of pseudonyms where there is one."""
    return Pseudonyms.load(environ) if environ.get(KEY_VARIABLE) or environ.get(KEY_FILE_VARIABLE) else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
