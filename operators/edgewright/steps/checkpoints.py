"""``checkpoint:``: a folder of the training's own that is kept while it trains, and is there again after a retry.

The training writes whatever it likes into the folder. A thread looks at it: what changed and then lay still is copied,
hashed and put below the task's own key in the artifact store, every file under its sha256, then the document that names
them, so a saver that is killed leaves the checkpoint before. Only two are ever there at once. A try begins with the
files of the last one, unless they belong to other code, data or arguments. When the task has succeeded, they go.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.digest import list_files, sha256_file
from edgewright.errors import EdgewrightError
from edgewright.spec.arguments import duration
from edgewright.spec.steps.train import TrainConfig
from edgewright.steps.cache import key_components, key_of
from edgewright.steps.contract import Identity, StepRequest
from edgewright.steps.execute import step_spec

log = logging.getLogger("edgewright.steps")

#: Variable in which a notebook or script finds the folder.
VARIABLE = "EDGEWRIGHT_CHECKPOINT"
#: Seconds that the folder must lie still before it is copied: a file half written is no checkpoint.
STILL = 1.0
_VERSION = 1

Signature = dict[str, tuple[int, int, int]]


def _place(identity: Identity) -> str:
    return f"{identity.key}/checkpoint"


def last(store: ArtifactStore, identity: Identity) -> dict[str, Any] | None:
    """Return the document of a task's last checkpoint, if it has one that can be read."""
    try:
        found = store.read_json(f"{_place(identity)}.json")
    except EdgewrightError:
        return None
    return found if isinstance(found, dict) and found.get("version") == _VERSION else None


def forget(store: ArtifactStore, identity: Identity) -> None:
    """Remove the checkpoints of a task that has succeeded."""
    store.delete(f"{_place(identity)}.json")
    store.delete(_place(identity))


def belongs_to(config: TrainConfig, request: StepRequest, state: dict[str, Any] | None) -> str:
    """Return what a checkpoint must have been made from to be of any use: code, data, arguments, libraries."""
    return key_of(key_components(step_spec("train"), config, request, state or {}))


class Checkpoints:
    """Keeps a folder while it is open.

    Args:
        store: Where to.
        identity: Of which task.
        key: What they belong to; one with another key is not restored.
        folder: Empty; filled by :meth:`restore`.
        every: Seconds between two checkpoints.

    Attributes:
        note: A sentence about what :meth:`restore` did; empty where there was nothing.
        number: Of the last checkpoint; 0 where there is none.
        whole: Whether the program ended by itself, so that what it wrote last is no half of a file.
    """

    def __init__(self, store: ArtifactStore, identity: Identity, key: str, folder: Path, every: float) -> None:
        self.folder = folder
        self.number = 0
        self.whole = False
        self.note = ""
        self._store = store
        self._identity = identity
        self._key = key
        self._every = every
        self._writer = uuid.uuid4().hex
        self._kept: Signature = {}
        self._sums: set[str] = set()
        self._saved_at = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="checkpoints", daemon=True)

    # -- before ------------------------------------------------------------------------------------------------

    def restore(self, *, claim: bool = True) -> None:
        """Fill the folder with the last checkpoint of this training; :attr:`note` says what was done.

        Args:
            claim: Whether this is the one that saves from now on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        document = last(self._store, self._identity)
        if document is not None:
            self.note = self._restored(document, claim=claim)

    def adopt(self) -> None:
        """Go on where another process of this try restored the folder."""
        document = last(self._store, self._identity)
        if document is not None and document["key"] == self._key:
            self._claim(document)
            self._kept = {}  # the command may have written since

    def _restored(self, document: dict[str, Any], *, claim: bool) -> str:
        if document["key"] != self._key:
            return "the last checkpoint is of other code, data or arguments: training starts from the beginning"
        try:
            self._fill(document["files"])
        except (EdgewrightError, OSError, ValueError) as error:
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            return f"the last checkpoint cannot be used ({error}): training starts from the beginning"
        self.number = int(document["number"])
        if claim:
            self._claim(document)
        return f"training goes on from checkpoint {self.number}, saved at {document['saved']}"

    def _claim(self, document: dict[str, Any]) -> None:
        """Make the checkpoint this try's own: one that still runs elsewhere saves no more."""
        self.number = int(document["number"])
        self._kept = _signature(self.folder)
        self._sums = {entry["sha256"] for entry in document["files"].values()}
        self._store.write_json(f"{_place(self._identity)}.json", {**document, "writer": self._writer})

    def _fill(self, files: dict[str, dict[str, Any]]) -> None:
        for name, entry in files.items():
            target = self.folder / name
            if not target.resolve().is_relative_to(self.folder.resolve()):
                raise ValueError(f"{name} leads out of the folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="edgewright-checkpoint-") as place:
                found = self._store.get_file(f"{_place(self._identity)}/{entry['sha256']}", Path(place))
                if found is None or sha256_file(found) != entry["sha256"]:
                    raise ValueError(f"{name} is {'gone' if found is None else 'damaged'}")
                shutil.copyfile(found, target)

    # -- while it trains ---------------------------------------------------------------------------------------

    def __enter__(self) -> Checkpoints:
        self._saved_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if error is not None and (self.whole or self._lies_still()):
            self._try_to_save(_signature(self.folder))

    def _lies_still(self) -> bool:
        newest = max((entry[1] for entry in _signature(self.folder).values()), default=0)
        return time.time_ns() - newest > STILL * 1e9

    def _watch(self) -> None:
        seen: Signature = {}
        while not self._end.wait(min(STILL, self._every)):
            found = _signature(self.folder)
            due = time.monotonic() - self._saved_at >= self._every
            if due and found and found == seen and found != self._kept and not self._try_to_save(found):
                return
            seen = found

    def _try_to_save(self, found: Signature) -> bool:
        """Save; a store that is away for a moment must not end a long training. Return whether to go on."""
        if found == self._kept or not found:
            return True
        self._saved_at = time.monotonic()
        try:
            return self._save(found)
        except (EdgewrightError, OSError) as error:
            log.warning("the checkpoint could not be saved, the next one may: %s", error)
            return True

    def _save(self, found: Signature) -> bool:
        key = f"{_place(self._identity)}.json"
        with tempfile.TemporaryDirectory(prefix="edgewright-checkpoint-") as place:
            files = self._copied(found, Path(place))
            if files is None:
                return True  # it was written to just now: the next look takes it
            before = last(self._store, self._identity)
            if before is not None and self.number and before["writer"] != self._writer:
                log.warning("another try of this task saves checkpoints now: no more are saved here")
                return False
            if before is not None and before["files"] == files and before["key"] == self._key:
                self._kept = found  # touched, and still the same
                return True
            sums = {entry["sha256"] for entry in files.values()}
            for digest in sums - self._sums:
                self._store.put_file(f"{_place(self._identity)}/{digest}", Path(place, digest))
        saved = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        number = max(self.number, int(before["number"]) if before else 0) + 1
        self._store.write_json(key, {
            "version": _VERSION, "number": number, "key": self._key, "writer": self._writer, "saved": saved,
            "files": files,
        })  # fmt: skip
        self.number, self._kept, self._sums = number, found, sums
        log.info("checkpoint %d saved: %d files, %d bytes", number, len(files), sum(e["size"] for e in files.values()))
        for old in self._store.scan(_place(self._identity)):
            if old.rpartition("/")[2] not in sums:
                with contextlib.suppress(EdgewrightError):
                    self._store.delete(old)
        return True

    def _copied(self, found: Signature, place: Path) -> dict[str, dict[str, Any]] | None:
        """Copy the files by their digests; ``None`` where somebody wrote to one of them meanwhile."""
        files: dict[str, dict[str, Any]] = {}
        try:
            for name in found:
                copy = place / "copy"
                shutil.copyfile(self.folder / name, copy)
                digest = sha256_file(copy)
                files[name] = {"sha256": digest, "size": copy.stat().st_size}
                copy.rename(place / digest)
        except FileNotFoundError:
            return None
        return files if _signature(self.folder) == found else None


def _signature(folder: Path) -> Signature:
    """Return size, time of change and inode of every file that counts: no hidden ones, none that end in ``.tmp``."""
    found: Signature = {}
    for name in list_files(folder):
        if name.endswith(".tmp") or any(part.startswith(".") for part in name.split("/")):
            continue
        with contextlib.suppress(FileNotFoundError):
            about = (folder / name).stat()
            found[name] = (about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def of_task(config: TrainConfig, request: StepRequest, store: ArtifactStore, folder: Path,
            state: dict[str, Any] | None) -> Checkpoints:  # fmt: skip
    """Return what keeps a folder for a task.

    Args:
        config: One with ``checkpoint:``.
        request: With the code as a folder of this machine.
        store: The request's store.
        folder: Where the training finds and writes its checkpoints.
        state: What else the training reads: the champion's version.
    """
    assert config.checkpoint is not None
    every = duration(config.checkpoint).total_seconds()
    return Checkpoints(store, request.identity, belongs_to(config, request, state), folder, every)


def staged(request: StepRequest, folder: Path, key: str) -> Checkpoints:
    """Return what keeps a folder that was restored by another process, beside somebody else's command.

    Args:
        request: A ``train`` with ``checkpoint:``.
        folder: Restored, and in use by now.
        key: What :func:`belongs_to` said when it was staged.
    """
    every = duration(request.config["checkpoint"]).total_seconds()
    kept = Checkpoints(ArtifactStore(request.store), request.identity, key, folder, every)
    kept.adopt()
    return kept
