"""Files with tasks that pipelines include and that are no pipelines themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_NAMES_A_DAG = re.compile(rb"dag_id|edgewright\.dev/schema|airflow\.apache\.org/schemas/dag")
#: The key and what follows it: the rest of its line, and lines that belong to it.
_INCLUDE = re.compile(r"^[\"']?include[\"']?\s*:([^\n]*\n?(?:[ \t\-\]][^\n]*\n?|\n)*)", re.MULTILINE)


def without_fragments(files: Iterable[Path]) -> Iterator[Path]:
    """Leave out the files that others among them include and that name no Dag.

    A file with ``tasks:`` and without ``dag_id`` is a pipeline that lacks something, unless another file includes it.
    Nothing is read again where every file names its Dag.
    """
    files = list(files)
    unnamed = {file.resolve() for file in files if not _names_a_dag(file)}
    included = {place for file in files for place in included_by(file)} if unnamed else set()
    return (file for file in files if not (file.resolve() in unnamed and file.resolve() in included))


def included_by(file: Path) -> set[Path]:
    """Return the places of the files that a document includes, as far as its text says."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    names = [name for found in _INCLUDE.findall(text) for name in re.split(r"[,\n]", found)]
    plain = [re.sub(r"(^|\s)#.*", "", name).strip(" \t\r-[]\"'") for name in names]
    try:
        return {(file.parent / name).resolve() for name in plain if name.endswith((".yaml", ".yml"))}
    except (OSError, ValueError):
        return set()


def _names_a_dag(file: Path) -> bool:
    try:
        return _NAMES_A_DAG.search(file.read_bytes()) is not None
    except OSError:
        return True  # so that the error is seen
