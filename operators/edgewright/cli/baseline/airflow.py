"""The pipelines that an Airflow runs, from its REST API; their files from the artifact store, where it has them.

Airflow shows the text that a Dag was made from. The files beside it (code, data, ``defaults.yaml``) are in the artifact
store, because the Dag bundle keeps every version there; without them the working files stand in, and the plan says so.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgewright.cli.airflow_api import AirflowApi
from edgewright.cli.baseline import Version
from edgewright.errors import EdgewrightError, NotFound
from edgewright.factory.source import Source, read_stub
from edgewright.spec.pipeline import Pipeline

_TAG = "edgewright"
_FENCE = re.compile(r"(`{3,})yaml\n(.*?)\n\1\s*\Z", re.DOTALL)


class RunningAirflow:
    """What an Airflow has now.

    Args:
        api: Its REST API.
        store: Artifact store in which its bundles keep their versions.
    """

    def __init__(self, api: AirflowApi, store: str) -> None:
        self._api = api
        self._store = store
        self._temporary = tempfile.TemporaryDirectory(prefix="edgewright-plan-")
        self._folders: dict[tuple[str, str], Path | None] = {}
        self._dags: dict[str, dict[str, Any]] = {}
        #: Folder that a bundle is made from, as far as the working files tell.
        self._sources: dict[str, Path] = {}

    def __enter__(self) -> RunningAirflow:
        """Ask for its Dags."""
        self._dags = {dag["dag_id"]: dag for dag in self._api.tagged(_TAG)}
        return self

    def __exit__(self, *details: object) -> None:
        """Remove fetched versions."""
        self._temporary.cleanup()

    def version(self, path: Path, pipeline: Pipeline) -> Version | None:
        """Return what Airflow has under a pipeline's id."""
        dag = self._dags.get(pipeline.dag_id)
        if dag is None:
            return None
        source = self._source(dag)
        if source is None:
            return None
        name = Path(source.name or dag["relative_fileloc"] or "")
        path = path.resolve()
        if dag["bundle_name"] and name.parts and path.parts[-len(name.parts) :] == name.parts:
            self._sources.setdefault(dag["bundle_name"], Path(*path.parts[: -len(name.parts)]))
        return self._read(dag, source, path)

    def removed(self, roots: list[Path], kept: Mapping[Path, Pipeline]) -> list[Version]:
        """Return the pipelines of these folders' bundles that have no file any more."""
        ids = {pipeline.dag_id for pipeline in kept.values()}
        found = []
        for dag_id, dag in self._dags.items():
            folder = self._sources.get(dag["bundle_name"]) or self._only_root(roots)
            if dag_id in ids or folder is None:
                continue
            source = self._source(dag)
            if source is None or source.name is None:
                continue
            place = folder / source.name
            if not any(place == root.resolve() or place.is_relative_to(root.resolve()) for root in roots):
                continue
            version = self._read(dag, source, place)
            if version is not None and version.pipeline.dag_id == dag_id:  # a companion's source is its pipeline's
                found.append(version)
        return found

    def _only_root(self, roots: list[Path]) -> Path | None:
        """Return the folder of a bundle none of whose pipelines is left, where there is no doubt."""
        bundles = {dag["bundle_name"] for dag in self._dags.values()}
        return roots[0].resolve() if len(roots) == len(bundles) == 1 and roots[0].is_dir() else None

    def _source(self, dag: dict[str, Any]) -> Source | None:
        """Return the document of a Dag: from its source, else from its page."""
        try:
            text = self._api.source(dag["dag_id"])
        except NotFound:
            return None
        if (source := read_stub(text)) is not None:
            return source
        place = str(dag["relative_fileloc"])
        if place.endswith((".yaml", ".yml")):
            return Source(place, text)  # Airflow 3.4 reads the document itself
        found = _FENCE.search(self._api.details(dag["dag_id"]).get("doc_md") or "")
        return None if found is None else Source(None, found.group(2) + "\n")

    def _read(self, dag: dict[str, Any], source: Source, path: Path) -> Version | None:
        from edgewright.spec import parse_pipelines

        notes = self._notes(dag)
        folder = self._files(dag) if source.name is not None else None
        place = path if folder is None or source.name is None else folder / source.name
        if folder is None:
            notes.append("the files beside the document are not compared: this installation's artifact store does not "
                         f"have version {dag['bundle_version'] or 'none'} of the Dag bundle")  # fmt: skip
        try:
            found = parse_pipelines(source.text, place, environment=source.environment or "")
            pipeline = next((one for one in found if one.dag_id == dag["dag_id"]), found[0])
        except EdgewrightError as error:
            notes.append(f"what Airflow runs cannot be read here: {str(error).splitlines()[0]}")
            return Version(Pipeline(dag["dag_id"], path, source.text, ""), False, tuple(notes))
        return Version(pipeline, folder is not None, tuple(notes))

    @staticmethod
    def _notes(dag: dict[str, Any]) -> list[str]:
        notes = ["it is paused in Airflow: no run starts by itself"] if dag["is_paused"] else []
        if dag["has_import_errors"]:
            notes.append("Airflow has an import error for it now; compared is the version before")
        return notes

    def _files(self, dag: dict[str, Any]) -> Path | None:
        """Return the folder of a Dag's bundle version, brought from the artifact store once."""
        from edgewright.artifacts import ArtifactStore
        from edgewright.factory.archive import fetch_version

        bundle, version = dag["bundle_name"], dag["bundle_version"]
        if not bundle or not version:
            return None
        if (bundle, version) not in self._folders:
            target = Path(self._temporary.name) / quote(bundle, safe="") / version
            try:
                fetch_version(ArtifactStore(self._store), bundle, version, target)
            except EdgewrightError:
                self._folders[bundle, version] = None
            else:
                self._folders[bundle, version] = target
        return self._folders[bundle, version]
