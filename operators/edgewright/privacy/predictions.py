"""A person's rows in what batch scoring wrote: parts and rejected rows are rewritten, and their markers follow.

Files appear under their names in one step. The marker of a shard says how large its part is, so between the part and
its marker the shard counts as not done; the journal knows the files of an attempt that was killed there, and the next
attempt writes their markers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.digest import sha256_file
from edgewright.errors import EdgewrightError
from edgewright.privacy.findings import Erasure, Finding
from edgewright.privacy.journal import Journal
from edgewright.privacy.matcher import Matcher
from edgewright.privacy.rows import Rows
from edgewright.privacy.search import results
from edgewright.steps.score_places import Place

_TABLE = (
    "a table, not searched: name it with --table where it is one of Cassandra; elsewhere delete the rows by their key"
)
_TOPIC = "a topic, not searched: name it with --topic"


class PredictionErasure:
    """Erases one person from the results of ``score``.

    Args:
        store: The store, whose runs say where results are.
        report: What is found goes here.
        matcher: Says whose a row is.
        say: Told what is done.
    """

    def __init__(self, store: ArtifactStore, report: Erasure, matcher: Matcher, say: Callable[[str], None]) -> None:
        self._store, self._report, self._say = store, report, say
        self._rows = Rows(matcher)
        self._journal = None if report.dry_run else Journal(store, report.subject, "predictions")

    def run(self) -> None:
        """Find and erase."""
        found: dict[str, int] = {}
        for place, runs in self._places().items():
            try:
                found |= self._folder(place)
            except (EdgewrightError, OSError) as error:
                why = f"it cannot be reached: {error}"
                self._report.kept.append(Finding("unsearched", place.name, runs, why))
        if self._journal is not None:
            found = self._journal.units
        how = "would be rewritten without them" if self._report.dry_run else "rewritten without them"
        self._report.erased += [Finding("predictions", key, count, how) for key, count in sorted(found.items())]

    def _places(self) -> dict[Place, int]:
        """Return the folders of results with the number of runs; list tables and topics as not searched."""
        places: dict[Place, int] = defaultdict(int)
        others: dict[tuple[str, str], int] = defaultdict(int)
        for folder, result in results(self._store):
            shown = result["tags"].get("predictions") if result["step"] == "score" else None
            if not shown:
                continue
            config = (self._store.read_json(f"{folder}/request.json") or {}).get("config", {})
            if shown.startswith("kafka://"):
                others[shown, _TOPIC] += 1
            elif config.get("into") or str(config.get("to")).startswith("cassandra://"):
                others[shown, _TABLE] += 1
            else:
                places[self._place(shown, result, config)] += 1
        for (shown, why), runs in sorted(others.items()):
            self._report.kept.append(Finding("unsearched", shown, runs, why))
        return places

    def _place(self, shown: str, result: dict[str, Any], config: dict[str, Any]) -> Place:
        identity, name = result["identity"], shown.rpartition("/")[2]
        own = f"{self._store.root}/scores/{quote(identity['dag_id'])}/{quote(identity['task_id'])}"
        root = str(config.get("to") or own).rstrip("/")
        return Place(f"{root}/{name}", config.get("connection") if config.get("to") else None)

    # -- one model version ---------------------------------------------------------------------------------------

    def _folder(self, place: Place) -> dict[str, int]:
        files = [one for one in place.below() if self._is_rows(one.address.removeprefix(place.address))]
        searched = self._report.searched
        searched["files of predictions"] = searched.get("files of predictions", 0) + len(files)
        known = self._journal.units if self._journal else {}
        found: dict[str, int] = {}
        changed: list[Place] = []
        for file in files:
            count = self._count(file)
            if count:
                found[file.name] = count
            if count or file.name in known:
                changed.append(file)
        if not self._report.dry_run and changed:
            for file in changed:
                self._file(file, found.get(file.name, 0))
            self._latest(place)
        return found

    @staticmethod
    def _is_rows(name: str) -> bool:
        last = name.rpartition("/")[2]
        return last.startswith("part-") or ("/_rejected/" in name and last.endswith(".jsonl"))

    def _count(self, file: Place) -> int:
        try:
            return self._rows.count(file.address, file.open)
        except (ValueError, pa.ArrowException) as error:
            self._report.kept.append(Finding("predictions", file.name, 1, f"it cannot be read: {error}"))
            return 0

    def _file(self, file: Place, count: int) -> None:
        if count:
            assert self._journal is not None
            self._say(f"{file.name}: {count} found")
            self._journal.note(file.name, count)
            with tempfile.TemporaryDirectory(prefix="edgewright-") as scratch, file.filling(Path(scratch)) as path:
                self._rows.without(file.address, file.open, path)
        self._mark(file)

    def _mark(self, file: Place) -> None:
        """Let the marker of a file's shard say what is there now."""
        folder, _, name = file.address.rpartition("/")
        is_part = name.startswith("part-")
        number = name.removeprefix("part-").partition(".")[0]
        done = Place(f"{folder if is_part else folder.rpartition('/')[0]}/_done/{number}.json", file.connection)
        marker = done.read_json()
        if not isinstance(marker, dict):
            return  # its shard is not done, and will be scored again
        with tempfile.TemporaryDirectory(prefix="edgewright-") as scratch:
            copy = Path(scratch) / "copy"
            with file.open() as opened, copy.open("wb") as out:
                shutil.copyfileobj(opened, out)
            rows = self._rows.total(file.address, copy)
            if is_part:
                marker |= {"rows": rows, "bytes": copy.stat().st_size, "sha256": sha256_file(copy)}
            else:
                marker["rejected"] = rows
        done.write_json(marker)

    def _latest(self, place: Place) -> None:
        """Let the list of the last complete job say what its files hold now."""
        latest = Place(f"{place.address.rpartition('/')[0]}/latest.json", place.connection)
        document = latest.read_json()
        if not isinstance(document, dict) or document.get("folder") != place.address.rpartition("/")[2]:
            return
        parts = [part for file in document["files"] for part in file["parts"]]
        for part in parts:
            folder, _, name = str(part["part"]).rpartition("/")
            number = name.removeprefix("part-").partition(".")[0]
            marker = place.child(f"{folder}/_done/{number}.json").read_json()
            if isinstance(marker, dict):
                part |= {key: marker[key] for key in ("rows", "rejected", "bytes", "sha256")}
        document |= {key: sum(part[key] for part in parts) for key in ("rows", "rejected")}
        latest.write_json(document)
