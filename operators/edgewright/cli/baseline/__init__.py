"""What ``edgewright plan`` compares with: a git revision, or what an Airflow runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgewright.spec.pipeline import Pipeline, Task


@dataclass(frozen=True)
class Version:
    """One version of a pipeline.

    Attributes:
        pipeline: What it says; its ``folder`` holds the files that it had then, where they are known.
        has_files: Whether they are known.
        notes: What is worth telling of it.
    """

    pipeline: Pipeline
    has_files: bool = True
    notes: tuple[str, ...] = ()


class Baseline(Protocol):
    """The versions that a plan starts from; a context manager, because files of older versions are temporary."""

    def version(self, path: Path, pipeline: Pipeline) -> Version | None:
        """Return the version of a pipeline of the working files; ``None`` where there is none."""

    def removed(self, roots: list[Path], kept: Mapping[Path, Pipeline]) -> list[Version]:
        """Return the pipelines that the working files below some folders no longer have."""

    def __enter__(self) -> Baseline:
        """Bring what is needed to this machine."""

    def __exit__(self, *details: object) -> None:
        """Remove temporary files."""


def changed_files(old: Pipeline, new: Pipeline) -> Callable[[Task], Iterator[tuple[str, str]]]:
    """Return what says which files differ between two folders and count for a task's cache key.

    The files are found as the cache finds them: the modules that an entry point imports and what these may read, and
    files that ``with:`` names.
    """
    import re

    from edgewright.spec.steps.base import ENTRY_PATTERN
    from edgewright.steps.code import code_digests

    is_entry = re.compile(ENTRY_PATTERN).match

    def of_task(task: Task) -> Iterator[tuple[str, str]]:
        if not task.is_step:
            return
        texts = list(_texts(task.config))
        programs = {task.config.get("notebook"), task.config.get("script")}
        entries = [text for text in texts if is_entry(text) or text in programs]
        before = code_digests(old.folder, entries, old.file.name)
        after = code_digests(new.folder, entries, new.file.name)
        named = {text for text in texts if text not in entries}
        for name in sorted({**before, **after}):
            if before.get(name) != after.get(name) and name not in named:
                yield "code", name
        for name in sorted(named):
            if _digest(old.folder, name) != _digest(new.folder, name):
                yield "state", name

    return of_task


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _texts(item)


def _digest(folder: Path, name: str) -> dict[str, str] | None:
    """Return the digests of a file of a folder, or of the files below it; ``None`` where there is none."""
    from edgewright.artifacts.digest import list_files, sha256_file

    try:
        path = (folder / name).resolve()
        if not name or not path.is_relative_to(folder.resolve()) or path == folder.resolve():
            return None
        if path.is_dir():
            return {file: sha256_file(path / file) for file in list_files(path)}
        return {"": sha256_file(path)} if path.is_file() else None
    except (OSError, ValueError):
        return None  # a text that is no name of a file
