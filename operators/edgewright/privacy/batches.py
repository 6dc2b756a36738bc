"""A person's messages in batches of events: rewritten without them, so that no replay brings them back.

The messages of a batch go into a new file, then the batch's manifest points to it, in one step; only then the old file
goes. Who reads meanwhile has the old batch or the new one. What no manifest points to (messages before a schema parted
them, dead letters, copies of objects) is replaced under its own name, in one step as well.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.digest import sha256_file
from edgewright.privacy.findings import Erasure, Finding
from edgewright.privacy.journal import Journal
from edgewright.privacy.matcher import Matcher
from edgewright.privacy.rows import Rows
from edgewright.streams.batches import ROOT, Batch, BatchLog, file_name

_PARTS = ("data", "dead", "objects")


class BatchErasure:
    """Erases one person from the batches of all event sources of a store.

    Args:
        store: The store.
        report: What is found goes here.
        matcher: Says whose a message is.
        say: Told what is done.
    """

    def __init__(self, store: ArtifactStore, report: Erasure, matcher: Matcher, say: Callable[[str], None]) -> None:
        self._store, self._report, self._say = store, report, say
        self._rows = Rows(matcher)
        self._journal = None if report.dry_run else Journal(store, report.subject, ROOT)

    def run(self) -> None:
        """Find and erase."""
        sources: dict[str, list[str]] = defaultdict(list)
        for key in self._store.list_keys(ROOT):
            if key.count("/") >= 4 and key.split("/")[3] in (*_PARTS, "batches"):
                sources["/".join(key.split("/")[:3])].append(key)
        found: dict[str, int] = {}
        for prefix, keys in sources.items():
            found |= self._source(BatchLog.at(self._store, prefix), keys)
        if self._journal is not None:
            found = self._journal.units
        how = "would be rewritten without them" if self._report.dry_run else "rewritten without them"
        self._report.erased += [Finding("events", key, count, how) for key, count in sorted(found.items())]

    def _source(self, log: BatchLog, keys: list[str]) -> dict[str, int]:
        files = [key for key in keys if key.split("/")[3] in _PARTS]
        self._report.searched["files of events"] = self._report.searched.get("files of events", 0) + len(files)
        found = {key: count for key in files if (count := self._count(key))}
        if not found or self._report.dry_run:
            return found
        batches = {}
        for key in keys:
            if key.split("/")[3] == "batches":
                batch = Batch(**(self._store.read_json(key) or {}))
                batches[batch.data] = batch
        for key, count in found.items():
            self._say(f"{key}: {count} found")
            assert self._journal is not None
            self._journal.note(key, count)
            if key in batches:
                self._swap(log, batches[key], count)
            else:
                self._rewrite(key, key)
        return found

    def _count(self, key: str) -> int:
        if not self._rows.knows(key):
            return 0
        try:
            return self._rows.count(key, lambda: self._store.open(key))
        except (ValueError, OSError, pa.ArrowException) as error:
            why = (
                f"it cannot be read by its name ({type(error).__name__}): edgewright gc removes it when its run is old"
            )
            self._report.kept.append(Finding("events", key, 1, why))
            return 0

    def _rewrite(self, key: str, target: str) -> tuple[int, int, str]:
        """Write a file without the person; return its rows, size and sha256."""
        with tempfile.TemporaryDirectory(prefix="edgewright-") as scratch:
            path = Path(scratch) / "rows"
            rows = self._rows.without(key, lambda: self._store.open(key), path)
            self._store.put_file(target, path)
            return rows, path.stat().st_size, sha256_file(path)

    def _swap(self, log: BatchLog, batch: Batch, count: int) -> None:
        suffix = hashlib.sha256(self._report.subject.encode()).hexdigest()[:8]
        target = f"{log.prefix}/data/{file_name(batch.name)}-erased-{suffix}.jsonl"
        rows, size, sha256 = self._rewrite(batch.data, target)
        erased = int(batch.details.get("erased", 0)) + count
        made = replace(
            batch, data=target, messages=rows, size=size, sha256=sha256, details={**batch.details, "erased": erased}
        )
        self._store.write_json(log.key("batches", batch.number), asdict(made))
        if not rows and log.state(batch.number) == "pending":
            log.mark("dispatched", batch.number, {"run_id": None, "reason": "every message was of an erased person"})
        self._store.delete(batch.data)
