"""How long versions of datasets stay: what their tasks declare as ``retention:``, and what is left of them after it.

A version goes when its time is over, whatever else would keep it: the last runs, the cache, the registry. Its time is
counted from the last run that made it, and a dataset that was made from another never outlives it. What stays is a
tombstone, ``tombstones/<sha256>.json``, with the lineage and no value of any row. The tombstone is written before the
bytes go, so a collector that is killed leaves both at worst, and the next one goes on.
"""

from __future__ import annotations

import datetime
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from edgewright.artifacts.ages import age_of
from edgewright.artifacts.gc import Policy, Removal, Report, references_in
from edgewright.artifacts.store import ArtifactStore

ROOT = "tombstones"
#: Steps whose outputs hold rows, or quote some; fitted state is a model, and stays.
_STEPS = ("ingest", "validate", "transform")
_KINDS = ("dataset", "report")


def tombstone_of(store: ArtifactStore, digest: str) -> dict[str, Any] | None:
    """Return what is left of a version whose retention ended; ``None`` where none has."""
    found: dict[str, Any] | None = store.read_json(f"{ROOT}/{digest}.json")
    return found


def tombstones(store: ArtifactStore) -> dict[str, dict[str, Any]]:
    """Return all tombstones by digest."""
    return {
        key.rpartition("/")[2].removesuffix(".json"): store.read_json(key) or {} for key in store.list_keys(ROOT)
    }  # fmt: skip


@dataclass(frozen=True)
class _Made:
    """One task of one run.

    Attributes:
        dag_id: Its pipeline.
        run_id: Its run.
        task_id: The task.
        step: What it ran.
        started: Seconds since 1970.
        retention: What it declares, as written: an age, or a mapping.
        inputs: Digests that it took.
        outputs: Kind by digest of what it made.
        releases: Digests of the releases that it published.
        registered: Name and version in the registry, where it has one.
    """

    dag_id: str
    run_id: str
    task_id: str
    step: str
    started: float
    retention: Any
    inputs: frozenset[str]
    outputs: dict[str, str]
    releases: frozenset[str]
    registered: str


class DatasetRetention:
    """Plans which versions of datasets go because their time is over.

    Args:
        store: The artifact store.
        policy: Its time of grace holds here, too: a run under way may be at work on what was written just now.
        aliased: Digests of the releases that an alias of the registry points to (champion, challenger, previous, ...).
    """

    def __init__(self, store: ArtifactStore, policy: Policy, aliased: Collection[str] = ()) -> None:
        self._store, self._policy, self._aliased = store, policy, set(aliased)
        self._now = time.time()
        self._tasks: list[_Made] = []
        self._makers: dict[str, list[_Made]] = defaultdict(list)
        self._declared: dict[tuple[str, str], Any] = {}
        self._held: set[str] = set()
        self._going: dict[str, str] = {}

    def plan(self, already: Report) -> Report:
        """Say what goes beside what is planned already; nothing is touched.

        Args:
            already: What goes anyway: it is not named twice.

        Raises:
            StoreError: the store cannot be read.
        """
        self._read()
        report, gone = Report(kept={}), {removal.key for removal in already.removals}
        for digest in self._makers:
            if self._end(digest, frozenset()) > self._now:
                continue
            folder = f"artifacts/{digest[:2]}/{digest}"
            files = self._store.scan(folder)
            changed = max((when for _, when in files.values()), default=self._now)
            if self._now - changed < self._policy.grace.total_seconds():
                continue
            self._going[digest] = self._keep(digest)
            if folder not in gone:
                report.removals.append(self._removal(digest, folder, sum(size for size, _ in files.values()), changed))
        report.removals[:0] = [one for one in self._cached() if one.key not in gone]
        return report

    def confirm(self, removal: Removal) -> bool:
        """Write the tombstone of what goes; called right before it does."""
        digest = removal.key.rpartition("/")[2]
        if digest in self._going and removal.key.startswith("artifacts/"):
            self._store.write_json(f"{ROOT}/{digest}.json", self._tombstone(digest))
        return True

    # -- what there is -----------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read what every run took and made."""
        newest: dict[tuple[str, str], float] = {}
        for key in self._store.list_keys("runs"):
            if key.count("/") != 4 or not key.endswith("/result.json"):
                continue
            request = self._store.read_json(f"{key.rpartition('/')[0]}/request.json")
            made = _made(self._store.read_json(key) or {}, request or {})
            if made is None:
                continue
            self._tasks.append(made)
            for digest in made.outputs:
                self._makers[digest].append(made)
            name = made.dag_id, made.task_id
            if request is not None and made.started >= newest.get(name, 0):
                # what the newest run declares holds for all versions of the dataset
                newest[name], self._declared[name] = made.started, made.retention
        self._held = self._of_aliased()

    def _of_aliased(self) -> set[str]:
        """Return everything that the releases with an alias were made from, however far back."""
        tasks = [task for task in self._tasks if self._aliased & {*task.releases, *task.outputs}]
        found: set[str] = set()
        while tasks:
            fresh = {digest for task in tasks for digest in (*task.inputs, *task.outputs)} - found
            found |= fresh
            tasks = [task for digest in fresh for task in self._makers[digest]]
        return found

    def _end(self, digest: str, seen: frozenset[str]) -> float:
        """Return when the time of a version is over, in seconds since 1970; infinity where nothing ends it."""
        if digest in seen:
            return float("inf")
        first_hand, passed_on = [], []
        for task in self._makers.get(digest, ()):
            if task.step not in _STEPS or task.outputs[digest] not in _KINDS:
                return float("inf")
            own = self._declared_end(task, digest)
            if digest in task.inputs:
                passed_on += [own] if own < float("inf") else []
            else:
                first_hand.append(min([own, *(self._end(one, seen | {digest}) for one in task.inputs)]))
        return min([max(first_hand, default=float("inf"))] + ([max(passed_on)] if passed_on else []))

    def _declared_end(self, task: _Made, digest: str) -> float:
        declared = self._declared.get((task.dag_id, task.task_id))
        keep, champions = _declared(declared)
        if not keep or (champions == "keep" and digest in self._held):
            return float("inf")
        return task.started + age_of(keep).total_seconds()

    # -- what goes ---------------------------------------------------------------------------------------------

    def _removal(self, digest: str, folder: str, size: int, changed: float) -> Removal:
        is_dataset = "dataset" in {task.outputs[digest] for task in self._makers[digest]}
        why = f"its retention of {self._going[digest]} is over; a tombstone stays"
        return Removal("expired dataset" if is_dataset else "expired report", folder, size, changed, why)

    def _keep(self, digest: str, seen: frozenset[str] = frozenset()) -> str:
        """Return what was declared for a version, or for what it was made from."""
        for task in self._makers.get(digest, ()):
            if keep := _declared(self._declared.get((task.dag_id, task.task_id)))[0]:
                return keep
            for one in task.inputs - seen - {digest}:
                if keep := self._keep(one, seen | {digest}):
                    return keep
        return ""

    def _cached(self) -> Iterator[Removal]:
        """Cached results that lead to what goes."""
        files = self._store.scan("cache") if self._going else {}
        for key, (size, changed) in files.items():
            if "/.tmp-" in key:
                continue
            digests = {ref["sha256"] for ref in references_in(self._store.read_json(key))}
            if digests & set(self._going):
                yield Removal("cache entry", key, size, changed, "leads to a dataset whose retention is over")

    def _tombstone(self, digest: str) -> dict[str, Any]:
        makers = sorted(self._makers[digest], key=lambda task: task.started)
        last = makers[-1]
        origin = next((task for task in makers if digest not in task.inputs), last)
        manifest = self._manifest(digest)
        return {
            "version": 1, "digest": digest, "dataset": f"{origin.dag_id}/{origin.task_id}", "run": origin.run_id,
            "made": _iso(origin.started), "last_made": _iso(last.started), "removed": _iso(time.time()),
            "retention": self._going[digest], "rows": manifest.get("rows"),
            "parts": {name: part.get("rows") for name, part in (manifest.get("parts") or {}).items()},
            "columns": [{"name": one["name"], "type": one["type"]} for one in manifest.get("columns") or ()],
            "source": {key: value for key, value in (manifest.get("source") or {}).items()
                       if key in ("uri", "sha256", "bytes")},
            "made_from": sorted(origin.inputs - {digest}), "models": list(self._models(digest)),
        }  # fmt: skip

    def _manifest(self, digest: str) -> dict[str, Any]:
        """Return a dataset's own description; empty where an earlier collector was killed over it."""
        found: dict[str, Any] | None = self._store.read_json(f"artifacts/{digest[:2]}/{digest}/dataset.json")
        return found or (tombstone_of(self._store, digest) or {})

    def _models(self, digest: str) -> Iterator[dict[str, str]]:
        """Yield the models and releases that were made from a version, directly or by way of others."""
        reached, grows, told = {digest}, True, set()
        while grows:
            grows = False
            for task in self._tasks:
                if not task.inputs & reached or set(task.outputs) <= reached:
                    continue
                reached |= set(task.outputs)
                grows = True
                for made, kind in task.outputs.items():
                    if kind in ("model", "bundle") and made not in told:
                        told.add(made)
                        yield {"digest": made, "kind": kind, "task": f"{task.dag_id}/{task.task_id}",
                               "run": task.run_id, "registered": task.registered}  # fmt: skip


def _made(result: dict[str, Any], request: dict[str, Any]) -> _Made | None:
    """Return what a task took and made; ``None`` for one that made nothing."""
    references = list((result.get("outputs") or {}).values())
    if not references or "identity" not in result:
        return None
    identity, config, tags = result["identity"], request.get("config") or {}, result.get("tags") or {}
    name, version = tags.get("model_name"), tags.get("model_version")
    return _Made(
        identity["dag_id"], identity["run_id"], identity["task_id"], result.get("step", ""),
        datetime.datetime.fromisoformat(result["started"]).timestamp(), config.get("retention"),
        frozenset(ref["sha256"] for ref in references_in(config)),
        {ref["sha256"]: ref["kind"] for ref in references},
        frozenset(str((ref.get("meta") or {}).get("digest")) for ref in references if ref["kind"] == "bundle"),
        f"{name}/{version}" if name and version else "",
    )  # fmt: skip


def _declared(retention: Any) -> tuple[str, str]:
    """Return age and what holds for champions, as :class:`edgewright.spec.steps.retention.Retention` has them."""
    if isinstance(retention, dict):
        return str(retention.get("after") or ""), str(retention.get("champions") or "remove")
    return str(retention or ""), "remove"


def _iso(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="seconds")
