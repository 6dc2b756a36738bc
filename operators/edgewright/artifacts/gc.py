"""Remove from the artifact store what nothing needs any more. First :func:`plan`, which touches nothing.

What stays:

* the last runs of each pipeline, every run that is young enough, and every run that published a release which the
  caller wants kept (what the registry holds), each with all artifacts that its requests and results refer to;
* cache entries that are young enough, or whose artifacts stay anyway, with their artifacts;
* whatever a document outside of runs and cache refers to (batches of events, ...);
* every artifact that was written, or was wanted again, within the time of grace: a run under way has not yet written
  down what it made.

What goes: the rest, artifacts that were never finished, and temporary files and folders older than the time of grace.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from edgewright.artifacts.locks import Lease
from edgewright.artifacts.store import MANIFEST, ArtifactStore
from edgewright.errors import DamagedArtifact

_TEMPORARY = re.compile(r"^(?:.*/)?\.tmp-[^/]*")
_ARTIFACT = re.compile(r"^artifacts/[0-9a-f]{2}/([0-9a-f]{64})(?=/)")

Files = dict[str, tuple[int, float]]
What = Literal[
    "run", "cache entry", "artifact", "unfinished artifact", "temporary", "batch of events", "copy of an object",
    "expired dataset", "expired report",
]  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """How long what is kept.

    Attributes:
        older_than: Runs and cache entries younger than this stay.
        keep_runs: So many of the last runs of each pipeline stay, whatever their age.
        grace: Artifacts younger than this stay, and temporary files.
    """

    older_than: timedelta = timedelta(days=30)
    keep_runs: int = 10
    grace: timedelta = timedelta(days=1)


@dataclass(frozen=True)
class Removal:
    """One thing that can go.

    Attributes:
        what: What it is.
        key: Its place in the store; everything below it.
        size: Bytes.
        changed: When it was last changed, in seconds since 1970.
        why: Why nothing needs it.
    """

    what: What
    key: str
    size: int
    changed: float
    why: str


@dataclass
class Report:
    """What can go, and how much stays.

    Attributes:
        removals: What can go, in the order in which it has to.
        kept: How many runs, cache entries and artifacts stay.
        runs: The runs that stay, as ``runs/<dag_id>/<run_id>``.
    """

    removals: list[Removal] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=lambda: {"run": 0, "cache entry": 0, "artifact": 0})
    runs: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Bytes that become free."""
        return sum(removal.size for removal in self.removals)

    def of(self, what: What) -> list[Removal]:
        """Return the removals of one sort."""
        return [removal for removal in self.removals if removal.what == what]


def plan(store: ArtifactStore, keep: Collection[str] = (), policy: Policy | None = None) -> Report:
    """Say what could be removed and why; nothing is touched.

    Args:
        store: The artifact store.
        keep: Digests of releases, or of artifacts, that are needed elsewhere: those of all registered versions.
        policy: How long what is kept.

    Raises:
        StoreError: the store cannot be read, so nobody knows what is needed.
        DamagedArtifact: a document cannot be read, so nobody knows what it needs.
    """
    return _Planner(store, set(keep), policy or Policy()).plan()


class _Planner:
    def __init__(self, store: ArtifactStore, keep: set[str], policy: Policy) -> None:
        self._store = store
        self._keep = keep
        self._policy = policy
        self._now = time.time()
        self._files = store.scan("")
        self._needed = set(keep)
        self._report = Report()

    def plan(self) -> Report:
        self._others()
        self._runs()
        self._cache()
        self._artifacts()
        self._temporary()
        return self._report

    def _is_young(self, changed: float, age: timedelta) -> bool:
        return self._now - changed < age.total_seconds()

    def _keys(self, prefix: str) -> list[str]:
        return [key for key in self._files if key.startswith(prefix) and not _TEMPORARY.match(key)]

    def _remove(self, what: What, key: str, keys: list[str], why: str) -> None:
        size = sum(self._files[name][0] for name in keys)
        self._report.removals.append(Removal(what, key, size, max(self._files[name][1] for name in keys), why))

    def _others(self) -> None:
        """Whatever lies beside runs, cache and artifacts and refers to artifacts needs them."""
        for key in self._keys(""):
            if key.endswith(".json") and key.partition("/")[0] not in ("runs", "cache", "artifacts", "locks"):
                self._needed |= {ref["sha256"] for ref in references_in(self._store.read_json(key))}

    def _runs(self) -> None:
        folders: dict[str, dict[str, list[str]]] = {}
        for key in self._keys("runs/"):
            parts = key.split("/")
            if len(parts) >= 4:
                folders.setdefault(parts[1], {}).setdefault("/".join(parts[:3]), []).append(key)
        for runs in folders.values():
            changed = {run: max(self._files[key][1] for key in keys) for run, keys in runs.items()}
            for number, run in enumerate(sorted(runs, key=lambda run: changed[run], reverse=True)):
                self._run(run, runs[run], number, changed[run])

    def _run(self, run: str, keys: list[str], number: int, changed: float) -> None:
        references = [ref for key in keys if key.endswith(".json") for ref in references_in(self._store.read_json(key))]
        digests = {ref["sha256"] for ref in references}
        releases = {str((ref.get("meta") or {}).get("digest")) for ref in references if ref["kind"] == "bundle"}
        if number < self._policy.keep_runs or self._is_young(changed, self._policy.older_than):
            kept = True
        else:
            kept = bool((digests | releases) & self._keep)
        if kept:
            self._report.kept["run"] += 1
            self._report.runs.add(run)
            self._needed |= digests
        else:
            age = round((self._now - changed) / 86400)
            self._remove("run", run, keys, f"{age} days old, {number} runs of its pipeline are newer")

    def _cache(self) -> None:
        for key in self._keys("cache/"):
            digests = {ref["sha256"] for ref in references_in(self._read_entry(key))}
            if self._is_young(self._files[key][1], self._policy.older_than):
                self._needed |= digests
            elif not digests or not digests <= self._needed:
                self._remove("cache entry", key, [key], "old, and no run that stays has its artifacts")
                continue
            self._report.kept["cache entry"] += 1

    def _read_entry(self, key: str) -> Any:
        try:
            return self._store.read_json(key)
        except DamagedArtifact:
            return None  # the cache does not use it either

    def _artifacts(self) -> None:
        folders: dict[str, list[str]] = {}
        for key in self._keys("artifacts/"):
            match = _ARTIFACT.match(key)
            if match:
                folders.setdefault(match.group(), []).append(key)
        for folder, keys in folders.items():
            complete = f"{folder}/{MANIFEST}" in keys
            young = self._is_young(max(self._files[key][1] for key in keys), self._policy.grace)
            if young or (complete and folder.rpartition("/")[2] in self._needed):
                self._report.kept["artifact"] += 1
            elif complete:
                self._remove("artifact", folder, keys, "no run, cache entry or release that stays refers to it")
            else:
                self._remove("unfinished artifact", folder, keys, "its writer was interrupted")

    def _temporary(self) -> None:
        folders: dict[str, list[str]] = {}
        for key in self._files:
            match = _TEMPORARY.match(key)
            if match:
                folders.setdefault(match.group(), []).append(key)
        for folder, keys in folders.items():
            if not self._is_young(max(self._files[key][1] for key in keys), self._policy.grace):
                self._remove("temporary", folder, keys, "its writer was interrupted")


def references_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every artifact reference in a document."""
    if isinstance(value, dict):
        if {"kind", "uri", "sha256"} <= set(value):
            yield value
        for item in value.values():
            yield from references_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from references_in(item)


def collect(
    store: ArtifactStore,
    report: Report,
    *,
    confirm: Callable[[Removal], bool] = lambda removal: True,
    timeout: float = 10.0,
) -> Report:
    """Remove what was planned, and return what was removed.

    What refers goes before what is referred to, and an artifact's manifest before its files, so that a collector that
    is killed leaves no document that points nowhere. What was changed since it was planned stays.

    Args:
        store: The artifact store.
        report: What :func:`plan` returned.
        confirm: Asked about each thing right before it goes.
        timeout: Seconds to wait for another collector.

    Raises:
        Busy: somebody else collects.
        StoreError: the store cannot be written; what is not removed yet stays whole.
    """
    done = Report(kept=dict(report.kept))
    with Lease(store, "gc", seconds=3600).hold(timeout=timeout):
        for removal in report.removals:
            files = store.scan(removal.key) or store.scan(removal.key.rpartition("/")[0])
            mine = {key: entry for key, entry in files.items() if _is_in(key, removal.key)}
            if not mine or max(changed for _, changed in mine.values()) > removal.changed:
                continue
            if not confirm(removal):
                continue
            if f"{removal.key}/{MANIFEST}" in mine:
                store.delete(f"{removal.key}/{MANIFEST}")
            store.delete(removal.key)
            done.removals.append(removal)
    return done


def _is_in(key: str, place: str) -> bool:
    return key == place or key.startswith(f"{place}/")
