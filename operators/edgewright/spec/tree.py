"""Finding the pipelines of a tree, and checking all of them.

In a folder, every ``*.yaml`` and ``*.yml`` file that says ``dag_id``, names one of our or Airflow's schemas, has a
top-level ``tasks:`` or is called ``pipeline.yaml`` is a pipeline, unless it names no Dag and another one includes it.
Others are not ours (values of a chart, a compose file). Left out are hidden folders, ``__pycache__``, ``node_modules``,
``defaults.yaml``, and what ``.airflowignore`` names (glob patterns as in ``.gitignore``, Airflow's default). A file
that is named itself is always a pipeline.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.errors import ConfigError, Fault, SpecError
from edgewright.spec.fragments import without_fragments
from edgewright.spec.load import load_pipelines
from edgewright.spec.pipeline import Pipeline

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_IGNORE_FILE = ".airflowignore"
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})
#: Documents that pipelines read and that are none themselves.
NOT_PIPELINES = ("defaults.yaml", "defaults.yml")
_NAMES = ("pipeline.yaml", "pipeline.yml")
_SPEAKS_OF_A_DAG = re.compile(
    rb"dag_id|edgewright\.dev/schema|airflow\.apache\.org/schemas/dag|^[\"']?tasks[\"']?\s*:", re.MULTILINE
)


def pipeline_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the pipelines' files of some files and folders, in the order of their names.

    Raises:
        ConfigError: a path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from without_fragments(_in_folder(path, []))
        elif path.exists():
            yield path
        else:
            raise ConfigError("no such file or folder", where=str(path))


def _in_folder(folder: Path, ignored: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    if (file := folder / _IGNORE_FILE).is_file():
        ignored = [*ignored, (folder, _patterns(file))]
    for entry in sorted(os.scandir(folder), key=lambda found: found.name):
        path = folder / entry.name
        is_folder = entry.is_dir()
        if entry.name.startswith(".") or _is_ignored(path, ignored, is_folder=is_folder):
            continue
        if is_folder:
            if entry.name not in _SKIPPED_FOLDERS and not entry.is_symlink():
                yield from _in_folder(path, ignored)
        elif path.suffix in (".yaml", ".yml") and is_pipeline(path):
            yield path


def _patterns(file: Path) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8", errors="replace").splitlines())


def _is_ignored(path: Path, ignored: list[tuple[Path, GitIgnoreSpec]], *, is_folder: bool) -> bool:
    """Whether the nearest ``.airflowignore`` that says something about a path leaves it out."""
    for folder, patterns in reversed(ignored):
        name = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
        found = patterns.check_file(name).include
        if found is not None:
            return found
    return False


def is_pipeline(path: Path) -> bool:
    """Whether a YAML file of a folder is a pipeline, by its name and a look at its text."""
    if path.name in NOT_PIPELINES:
        return False
    try:
        return path.name in _NAMES or _SPEAKS_OF_A_DAG.search(path.read_bytes()) is not None
    except OSError:
        return True  # so that the error is seen


def check_tree(paths: Iterable[Path]) -> list[tuple[Path, Pipeline | list[Fault]]]:
    """Return every pipeline below some paths, or its faults; a ``dag_id`` of two files is a fault of the second.

    Operators' arguments are held against their sources, too.
    """
    found: list[tuple[Path, Pipeline | list[Fault]]] = []
    seen: dict[str, Path] = {}
    for path in dict.fromkeys(pipeline_files(paths)):
        try:
            pipelines = load_pipelines(path, thorough=True)
        except SpecError as error:
            found.append((path, error.faults))
            continue
        except ConfigError as error:
            found.append((path, [Fault(str(path), 1, 1, "", error.message, error.hint, code="unreadable")]))
            continue
        for pipeline in pipelines:
            if pipeline.dag_id in seen:
                found.append((path, [_duplicate(path, pipeline, seen[pipeline.dag_id])]))
                continue
            seen[pipeline.dag_id] = path
            found.append((path, pipeline))
    return found


def _duplicate(path: Path, pipeline: Pipeline, first: Path) -> Fault:
    lines = pipeline.text.splitlines()
    number = next((n for n, line in enumerate(lines, start=1) if line.startswith("dag_id")), 1)
    message = f"duplicate dag_id {pipeline.dag_id!r}"
    return Fault(str(path), number, 1, "dag_id", message, f"{first} has it already", code="duplicate-dag")
