"""A folder of pipelines, read again and again: which files there are and what is in them, at the cost of a look."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 1 << 20
#: A file that was changed less than this many seconds before a look may change again without a trace in its times.
_RACY_SECONDS = 1.0
_KEPT_HIDDEN = ".airflowignore"
#: Hidden files, and what editors and Python leave behind.
_LEFT_OUT_START = (".", "~")
_LEFT_OUT_END = (".swp", "~", ".pyc")


@dataclass(frozen=True)
class _Seen:
    stamp: tuple[int, int, int]
    sha256: str
    settled: bool


class SourceTree:
    """Reads a folder and keeps every content once, as a read-only file named by its digest.

    Contents are copied, never linked to the source: an editor may write into a file in place.

    Args:
        folder: What people edit.
        blobs: Where contents are kept.
    """

    def __init__(self, folder: Path, blobs: Path) -> None:
        self.folder = folder
        self.blobs = blobs
        self._seen: dict[str, _Seen] = {}

    def read(self) -> dict[str, str]:
        """Return the sha256 of every file by relative path; afterwards each has its content among the blobs."""
        found: dict[str, str] = {}
        seen: dict[str, _Seen] = {}
        for name in self._names():
            try:
                entry = self._look(name)
            except FileNotFoundError:
                continue  # removed while we looked
            seen[name] = entry
            found[name] = entry.sha256
        self._seen = seen
        return found

    def blob(self, sha256: str) -> Path:
        """Return the file that holds a content."""
        return self.blobs / sha256[:2] / sha256

    def forget(self, used: set[str]) -> None:
        """Remove contents that neither this tree nor any version links to."""
        for path in list(self.blobs.glob("*/*")):
            if path.name not in used and path.stat().st_nlink == 1:
                path.unlink(missing_ok=True)

    def _names(self) -> Iterator[str]:
        for place, folders, files in os.walk(self.folder):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__pycache__")
            for file in sorted(files):
                if file == _KEPT_HIDDEN or not (file.startswith(_LEFT_OUT_START) or file.endswith(_LEFT_OUT_END)):
                    path = Path(place, file)
                    if path.is_file():
                        yield path.relative_to(self.folder).as_posix()

    def _look(self, name: str) -> _Seen:
        path = self.folder / name
        state = path.stat()
        stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        before = self._seen.get(name)
        if before is not None and before.stamp == stamp and before.settled and self.blob(before.sha256).exists():
            return before
        settled = time.time() - state.st_mtime > _RACY_SECONDS
        return _Seen(stamp, self._keep(path), settled)

    def _keep(self, path: Path) -> str:
        self.blobs.mkdir(parents=True, exist_ok=True)
        temporary = self.blobs / f".tmp-{uuid.uuid4().hex}"
        digest = hashlib.sha256()
        try:
            with path.open("rb") as source, temporary.open("wb") as target:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    target.write(block)
            blob = self.blob(digest.hexdigest())
            if not blob.exists():
                blob.parent.mkdir(exist_ok=True)
                temporary.chmod(0o444)
                temporary.replace(blob)
        finally:
            temporary.unlink(missing_ok=True)
        return digest.hexdigest()


def link(source: Path, target: Path) -> None:
    """Put a file at a place in one step: a hard link where the file system can, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        try:
            os.link(source, temporary)
        except OSError:
            temporary.write_bytes(source.read_bytes())
        temporary.replace(target)
    finally:
        # renaming a link over another link to the same file does nothing
        temporary.unlink(missing_ok=True)


def write(target: Path, data: bytes) -> None:
    """Write a file in one step; its time is now."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
