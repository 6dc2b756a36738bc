"""A person's rows in the artifact store: datasets get new versions without them, the old ones are marked and go.

The order makes a kill harmless. A new version is stored first; then the old one is marked (from now on nobody stores it
again); then the new version is entered as a run of its own, so that people and later runs find it; only then the bytes
go, and with them the cached results that would lead to them. Who begins anew does again what was not finished.
"""

from __future__ import annotations

import datetime
import hashlib
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from edgewright.artifacts import ArtifactRef, ArtifactStore, erasures
from edgewright.artifacts.store import MANIFEST
from edgewright.privacy.findings import Erasure, Finding
from edgewright.privacy.journal import Journal
from edgewright.privacy.search import found_in, results, rows_in
from edgewright.steps.contract import CacheInfo, StepResult
from edgewright.steps.data import MANIFEST as DATASET
from edgewright.steps.data import Dataset, DatasetWriter, reference_meta
from edgewright.steps.erased import Erased

#: Kinds that are not taken apart: a model without some rows is another model.
_WHOLE = ("model", "bundle", "code")


class ArtifactErasure:
    """Erases one person from the artifacts of a store.

    Args:
        store: The store.
        report: What is found goes here.
        say: Told what is done.
    """

    def __init__(self, store: ArtifactStore, report: Erasure, say: Callable[[str], None] = lambda line: None) -> None:
        self._store, self._report, self._say = store, report, say
        self._subject = report.subject
        self._erased = Erased([report.subject])
        self._seen: set[str] = set()

    def run(self) -> set[str]:
        """Find and erase; return the digests of all artifacts that held the person, now or at an earlier attempt."""
        kinds = {ref["sha256"]: ref["kind"] for _, result in results(self._store) for ref in result["outputs"].values()}
        found: set[str] = set()
        while new := self._unseen():  # runs go on meanwhile
            for digest, keys in new.items():
                if self._artifact(digest, keys, kinds.get(digest, "")):
                    found.add(digest)
        self._increments()
        if not self._report.dry_run:
            found |= self._finish()
        return found

    # -- looking -----------------------------------------------------------------------------------------------

    def _unseen(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for key in self._store.list_keys("artifacts"):
            parts = key.split("/")
            if len(parts) > 3 and parts[2] not in self._seen:
                found[parts[2]].append(key)
        self._seen |= set(found)
        self._count("artifacts", len(found))
        return found

    def _count(self, what: str, number: int) -> None:
        self._report.searched[what] = self._report.searched.get(what, 0) + number

    def _artifact(self, digest: str, keys: list[str], kind: str) -> bool:
        counts = {key: found_in(self._store, key, self._subject, self._erased) for key in keys}
        holding = {key.split("/", 3)[3]: number for key, number in counts.items() if number}
        if not holding:
            return False
        is_dataset = f"artifacts/{digest[:2]}/{digest}/{DATASET}" in keys
        if not is_dataset and kind in _WHOLE:
            why = f"its files hold the pseudonym: {', '.join(sorted(holding))}"
            self._report.kept.append(Finding("model", f"{kind} {digest}", len(holding), why))
            return False
        rows = sum(number for name, number in holding.items() if name.endswith(".parquet"))
        if self._report.dry_run:
            what = "a version without them would be made" if is_dataset else "it would be removed"
            self._add(digest, is_dataset, rows or len(holding), what, {})
            return True
        self._say(f"{digest[:12]}: {rows or len(holding)} found")
        replacement = self._replace(digest) if is_dataset else None
        mark = {
            "subject": self._subject, "time": self._report.requested, "what": "dataset" if is_dataset else "artifact",
            "count": rows or len(holding), "replaced_by": replacement,
        }  # fmt: skip
        if erasures.mark_of(self._store, digest) is None:
            erasures.mark_artifact(self._store, digest, mark)
        return True

    def _add(self, digest: str, is_dataset: bool, count: int, how: str, details: dict[str, Any]) -> None:
        what = "dataset" if is_dataset else "artifact"
        self._report.erased.append(Finding(what, digest, count, how, details))  # type: ignore[arg-type]

    # -- new versions ------------------------------------------------------------------------------------------

    def _replace(self, digest: str) -> dict[str, Any] | None:
        """Store a dataset without the person's rows; ``None`` where nothing worth having is left."""
        ref = self._store.find(digest, "dataset")
        if ref is None:
            return None
        with tempfile.TemporaryDirectory(prefix="edgewright-") as scratch:
            manifest = self._rewrite(Dataset.open(self._store.fetch(ref)), Path(scratch))
            if manifest is None:
                return None
            new = self._store.put(Path(scratch), "dataset", reference_meta(manifest))
        return {"digest": new.sha256, "size": new.size, "meta": new.meta}

    def _rewrite(self, dataset: Dataset, folder: Path) -> dict[str, Any] | None:
        columns = [(column["name"], column["type"]) for column in dataset.columns]
        writer = DatasetWriter(folder, columns, dataset.label, dataset.manifest["source"])
        for part in dataset.part_names:
            for batch in dataset.batches(part):
                writer.write(part, self._erased.without(batch))
        manifest = writer.close(dataset.transforms)
        if not manifest["parts"] or ("train" in dataset.part_names and "train" not in manifest["parts"]):
            return None
        ours = {DATASET, MANIFEST, *(f"{part}.parquet" for part in dataset.part_names)}
        for file in sorted(dataset.folder.rglob("*")):
            name = file.relative_to(dataset.folder).as_posix()
            if file.is_file() and name not in ours and self._subject.encode() not in file.read_bytes():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / name)
        return manifest

    # -- the rest of it, also of an attempt that was killed ----------------------------------------------------

    def _finish(self) -> set[str]:
        """Enter the new versions, and remove the bytes of everything that is marked."""
        everything = erasures.marks(self._store)
        mine = {digest: mark for digest, mark in everything.items() if mark.get("subject") == self._subject}
        self._enter_versions(mine)
        self._forget_results(set(mine))
        for digest, mark in mine.items():
            folder = f"artifacts/{digest[:2]}/{digest}"
            self._store.delete(f"{folder}/{MANIFEST}")
            self._store.delete(folder)
            self._store.discard_local_copy(
                ArtifactRef(kind="dataset", uri=f"{self._store.root}/{folder}", sha256=digest)
            )
            instead = mark["replaced_by"]["digest"] if mark["replaced_by"] else None
            how = f"new version {instead[:12]}; the old one is marked, its bytes are gone" if instead else "removed"
            self._add(digest, mark["what"] == "dataset", mark["count"], how, {"replaced_by": instead})
        return set(mine)

    def _enter_versions(self, mine: dict[str, dict[str, Any]]) -> None:
        """Write a run with the new versions for each task whose last run made the old ones."""
        last: dict[tuple[str, ...], dict[str, Any]] = {}
        for folder, result in results(self._store):
            digests = [ref["sha256"] for ref in result["outputs"].values()]
            if any(mine.get(digest, {}).get("replaced_by") for digest in digests):
                place = (*folder.split("/")[1::2], *digests)
                if place not in last or last[place]["started"] < result["started"]:
                    last[place] = result
        for result in last.values():
            self._enter(StepResult.model_validate(result), mine)

    def _enter(self, result: StepResult, mine: dict[str, dict[str, Any]]) -> None:
        outputs = {}
        for name, ref in result.outputs.items():
            mark = mine.get(ref.sha256)
            if mark is None:
                outputs[name] = ref
            elif mark["replaced_by"]:
                new = mark["replaced_by"]
                uri = f"{self._store.root}/artifacts/{new['digest'][:2]}/{new['digest']}"
                outputs[name] = ArtifactRef(
                    kind=ref.kind, uri=uri, sha256=new["digest"], size=new["size"], meta=new["meta"]
                )
        suffix = hashlib.sha256(self._subject.encode()).hexdigest()[:8]
        identity = result.identity.model_copy(update={"run_id": f"{result.identity.run_id}__erased_{suffix}"})
        # right behind the version that it replaces, so that a later one stays the newest
        started = datetime.datetime.fromisoformat(result.started) + datetime.timedelta(milliseconds=1)
        new_result = result.model_copy(
            update={
                "identity": identity, "outputs": outputs, "started": started.isoformat(timespec="milliseconds"),
                "notes": ["a person's rows were erased (edgewright privacy erase)"], "metrics": {}, "tags": {},
                "cache": CacheInfo(reason="made by an erasure"),
            }
        )  # fmt: skip
        self._store.write_json(f"{identity.key}/result.json", new_result.model_dump(mode="json"))

    def _forget_results(self, gone: set[str]) -> None:
        """Remove cached results that lead to what is gone."""
        for key in self._store.list_keys("cache"):
            outputs = (self._store.read_json(key) or {}).get("outputs", {})
            if gone & {ref.get("sha256") for ref in outputs.values()}:
                self._store.delete(key)

    # -- rows that earlier runs of a database's ingest kept ----------------------------------------------------

    def _increments(self) -> None:
        keys = [key for key in self._store.list_keys("increments") if key.endswith(".parquet")]
        self._count("increments", len(keys))
        found = {key: rows for key in keys if (rows := rows_in(self._store, key, self._erased))}
        how = "would be rewritten without them"
        if not self._report.dry_run:
            journal = Journal(self._store, self._subject, "increments")
            for key, rows in found.items():
                journal.note(key, rows)
                self._rewrite_increment(key)
            found, how = journal.units, "rewritten without them"
        self._report.erased += [Finding("increment", key, rows, how) for key, rows in sorted(found.items())]

    def _rewrite_increment(self, key: str) -> None:
        with tempfile.TemporaryDirectory(prefix="edgewright-") as scratch:
            target = Path(scratch) / "rows.parquet"
            with self._store.open(key) as opened, pq.ParquetFile(opened) as file:
                schema = file.schema_arrow
                with pq.ParquetWriter(target, schema, compression="zstd", version="2.6", store_schema=False) as writer:
                    for batch in file.iter_batches():
                        writer.write_batch(self._erased.without(batch))
            self._store.put_file(key, target)
