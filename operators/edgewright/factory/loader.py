"""Pipelines in a plain Dags folder, without the bundle: one line in one Python file.

::

    # dags/pipelines.py: the words airflow and dag tell Airflow to look into this file
    from edgewright.factory import load_dags

    load_dags(globals(), __file__)

The bundle is better where it can be had: it notices an edit within seconds (this file only when Airflow parses it
again, every 30 s), pins a run to its version, and shows a broken file as an import error under its own name. Here an
import error would take every pipeline of the folder out of service, so the faults are the page of a Dag that is there
only while something is broken: ``edgewright_broken_pipelines``, tagged ``broken``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from edgewright.errors import EdgewrightError
from edgewright.factory.compat import parsed_dag_id
from edgewright.factory.dag import TAG, dags_of
from edgewright.spec import load_pipelines, pipeline_files

log = logging.getLogger("edgewright.factory")
#: The Dag that stands for pipelines with faults.
BROKEN = "edgewright_broken_pipelines"
_DAG_ID = re.compile(rb"^dag_id\s*:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)


def load_dags(namespace: MutableMapping[str, Any], file: str, *, folder: str | Path | None = None) -> None:
    """Put the Dag of every pipeline below a folder into a module. A broken one hides no other.

    A worker that runs one task builds that Dag only.

    Args:
        namespace: The module's ``globals()``.
        file: Its ``__file__``.
        folder: Where the pipelines are. Default: the module's folder.
    """
    wanted = parsed_dag_id()
    broken: list[str] = []
    for path in pipeline_files([Path(folder) if folder else Path(file).parent]):
        if wanted is not None and not _may_be(path, wanted):
            continue
        try:
            dags = dags_of(load_pipelines(path))
        except EdgewrightError as error:
            log.error("%s", error)
            broken.append(str(error))
            continue
        namespace.update({f"dag_{_identifier(dag.dag_id)}": dag for dag in dags})
    if broken:
        namespace["broken_pipelines"] = _broken(broken)


def _broken(faults: list[str]) -> DAG:
    page = "# Pipelines with faults\n\n```text\n" + "\n\n".join(faults) + "\n```"
    return DAG(
        BROKEN, schedule=None, doc_md=page, tags=[TAG, "broken"], dag_display_name=f"Broken pipelines: {len(faults)}",
        description=faults[0].splitlines()[0][:200],
    )  # fmt: skip


def _may_be(path: Path, dag_id: str) -> bool:
    """Whether a file may hold a Dag, by a look at its text; a file that hides its id is parsed."""
    found = {name.decode(errors="replace") for name in _DAG_ID.findall(path.read_bytes())}
    return not found or not found.isdisjoint((dag_id, dag_id.removesuffix("__events")))


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text)
