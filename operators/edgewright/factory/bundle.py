"""The Dag bundle of a folder of pipelines.

Airflow 3.3 finds Dags in Python files only, notices an edit by a file's time, and pins a run to the bundle's version.
So every look at the folder that finds a change makes a version: a copy of the whole folder (each content once, the rest
hard links) in which every pipeline has a stub, see :mod:`edgewright.factory.stub`. ``current`` is the newest version at
a place that stays, with fresh times on what changed; a run that has begun stays on ``versions/<version>``.

What Airflow needs to know::

    AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL=1
    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST='[{"name": "pipelines",
      "classpath": "edgewright.factory.bundle.PipelineBundle", "kwargs": {"src": "/path/to/dags"}}]'
"""

from __future__ import annotations

import datetime
import json
import logging
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from edgewright.artifacts import ArtifactStore, digest_json
from edgewright.errors import ConfigError, EdgewrightError
from edgewright.factory import archive
from edgewright.factory.compat import BaseDagBundle, BundleVersion, was_used
from edgewright.factory.stub import checked_name, render_stub, stub_name
from edgewright.factory.tree import SourceTree, link, write
from edgewright.installation import Installation
from edgewright.spec import compiled, parse_pipelines, pipeline_files
from edgewright.spec.inherit import MARK
from edgewright.spec.pipeline import Pipeline
from edgewright.steps.revision import NOTE, git_state

log = logging.getLogger("edgewright.factory")
#: Raised when the same folder would make other stubs than before.
_FORMAT = 5
#: Versions on which no task of this machine ran stay this long, and the newest of them longer.
KEPT_SECONDS = 24 * 3600
KEPT_VERSIONS = 20
_STATE = "edgewright-state.json"
_EMPTY: dict[str, Any] = {"version": None, "current": {}, "good": {}}


class PipelineBundle(BaseDagBundle):
    """Every YAML pipeline below a folder as a Dag, with plain Python Dags beside them.

    Args:
        src: The folder that people edit. ``.airflowignore`` and ``defaults.yaml`` are honoured.
        store: Artifact store that keeps every version for workers of other machines. Default: the installation's;
            ``""`` keeps none.
        refresh_interval: Seconds between two looks at the folder.
    """

    supports_versioning = True

    def __init__(self, *, src: str, store: str | None = None, refresh_interval: int = 2, **kwargs: Any) -> None:
        super().__init__(refresh_interval=refresh_interval, **kwargs)
        self._src = Path(src).expanduser()
        self._store_root = store
        self._current = self.base_dir / "current"
        self._tree = SourceTree(self._src, self.base_dir / "blobs")
        self._revision_stamp: Any = None
        self._stored: set[str] = set()

    # -- what Airflow asks -------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """Folder of the pinned version, or of the newest one."""
        return self.versions_dir / self.version if self.version else self._current

    def initialize(self) -> None:
        """Bring the version to this machine.

        Raises:
            ConfigError: the folder is not there.
            StoreError: a pinned version is neither here nor in the artifact store.
        """
        if self.version is None:
            self.refresh()
        elif not self.path.exists():
            with self.lock():
                if not self.path.exists():
                    archive.fetch_version(self._store(), self.name, self.version, self.path)
        super().initialize()

    def get_current_version(self) -> BundleVersion | None:
        """Return the pinned version, or that of the last look."""
        version = self.version or self._state()["version"]
        return BundleVersion(version) if version else None

    def refresh(self) -> None:
        """Look at the folder, and make a new version if anything changed.

        Raises:
            ConfigError: the bundle is pinned, or the folder is not there.
        """
        if self.version:
            raise ConfigError(f"the bundle {self.name} is pinned to version {self.version}")
        if not self._src.is_dir():
            raise ConfigError("no such folder", where=str(self._src), hint=f"it is src of the Dag bundle {self.name}")
        with self.lock():
            files = self._tree.read()
            environment = Installation.load().environment
            version = digest_json({"format": _FORMAT, "files": files, "environment": environment})[:16]
            state = self._state()
            before = state["version"]
            place = self.versions_dir / version
            if state["version"] != version or not place.exists() or not self._current.exists():
                stubs = self._stubs(files, version, state, environment)
                self._make_version(place, files, stubs)
                self._make_current(files, stubs, state)
                state["version"] = version
                write(self.base_dir / _STATE, json.dumps(state, indent=1, sort_keys=True).encode())
                self._tree.forget(set(files.values()))
            self._note_revision(version)
            self._keep_version(version, place)
            if version != before:
                self._prune(version)

    # -- stubs -------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        try:
            document = json.loads((self.base_dir / _STATE).read_text())
        except (OSError, ValueError):
            return json.loads(json.dumps(_EMPTY))  # type: ignore[no-any-return]
        return {**_EMPTY, **document}

    def _stubs(
        self, files: dict[str, str], version: str, state: dict[str, Any], environment: str | None
    ) -> dict[str, str]:
        """Return the stub of every pipeline and what belongs to it by relative path; note which pipelines are good."""
        stubs: dict[str, str] = {}
        good: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for path in pipeline_files([self._src]):
            name = path.relative_to(self._src).as_posix()
            if name not in files:
                continue
            text = self._text(files[name])
            pipelines = self._parsed(text, path, environment)
            fault = None if pipelines is None else self._fault(pipelines, name, owners)
            is_good = pipelines is not None and fault is None
            last = state["good"].get(name)
            if is_good and (last is None or last["sha256"] != files[name]):
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                last = {"sha256": files[name], "version": version, "since": now}
            if last is not None:
                good[name] = last
            known = f"{last['version']} of {last['since']}" if last is not None and not is_good else None
            checked = None
            if pipelines is not None and is_good:
                data, checked = compiled.dump(pipelines)
                stubs[checked_name(name)] = data.decode()
            stubs[stub_name(name)] = render_stub(
                name, text, self._digest(name, files, pipelines), last_good=known, fault=fault,
                environment=environment, checked=checked,
            )  # fmt: skip
        state["good"] = good
        return stubs

    def _text(self, sha256: str) -> str | None:
        try:
            return self._tree.blob(sha256).read_bytes().decode()
        except UnicodeDecodeError:
            return None

    @staticmethod
    def _parsed(text: str | None, path: Path, environment: str | None) -> list[Pipeline] | None:
        """Return the pipelines of a file without faults."""
        try:
            return None if text is None else parse_pipelines(text, path, environment=environment or "")
        except EdgewrightError:
            return None

    def _fault(self, pipelines: list[Pipeline], name: str, owners: dict[str, str]) -> str | None:
        """Return what is wrong with a file that is right by itself."""
        for pipeline in pipelines:
            owner = owners.setdefault(pipeline.dag_id, name)
            if owner != name:
                return f"duplicate dag_id {pipeline.dag_id!r}: {owner} has it already"
            outside = [str(file) for file in pipeline.inherited if not file.is_relative_to(self._src.absolute())]
            if outside:
                return f"it inherits from {', '.join(outside)}, which is not in the bundle's folder"
        return None

    def _digest(self, name: str, files: dict[str, str], pipelines: list[Pipeline] | None) -> str:
        """Return the digest of all that a file's pipelines are made of; of a broken one, all that might mend it."""
        if pipelines is None:
            return digest_json(files)
        folder, source = name.rpartition("/")[0], self._src.absolute()
        prefix = f"{folder}/" if folder else ""
        all_inherited = {file for pipeline in pipelines for file in pipeline.inherited}
        inherited = {file.relative_to(source).as_posix() for file in all_inherited if file.is_relative_to(source)}
        return digest_json({file: sha for file, sha in files.items() if file.startswith(prefix) or file in inherited})

    # -- files -------------------------------------------------------------------------------------------------

    def _make_version(self, place: Path, files: dict[str, str], stubs: dict[str, str]) -> None:
        if place.exists():
            return
        temporary = place.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            for name, sha256 in files.items():
                link(self._tree.blob(sha256), temporary / name)
            for name, text in stubs.items():
                write(temporary / name, text.encode())
            write(temporary / MARK, b"")
            temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _make_current(self, files: dict[str, str], stubs: dict[str, str], state: dict[str, Any]) -> None:
        """Bring ``current`` up to date: stubs last, so that a parse of one sees the code that belongs to it."""
        before: dict[str, str] = state["current"]
        after = {**files, **{name: digest_json(text) for name, text in stubs.items()}}
        changed = [name for name in after if before.get(name) != after[name] or not (self._current / name).exists()]
        for name in sorted(changed, key=lambda name: (name in stubs, name.endswith(".py"), name)):
            target = self._current / name
            if name in stubs:
                write(target, stubs[name].encode())
            elif name.endswith(".py"):
                # Airflow goes by a file's time, and an older content comes back with an older time
                write(target, self._tree.blob(after[name]).read_bytes())
            else:
                link(self._tree.blob(after[name]), target)
        for name in before:
            if name not in after:
                (self._current / name).unlink(missing_ok=True)
        write(self._current / MARK, b"")
        state["current"] = after

    def _note_revision(self, version: str) -> None:
        """Write down the source's git commit beside the copies, which are no repository."""
        stamp = (version, *(_time(self._git(name)) for name in ("HEAD", "logs/HEAD", "index")))
        if stamp == self._revision_stamp:
            return
        commit, dirty = git_state(str(self._src))
        data = json.dumps({"commit": commit, "dirty": dirty}).encode()
        for place in (self._current, self.versions_dir / version):
            write(place / NOTE, data)
        # asking git may have touched its index
        self._revision_stamp = (version, *(_time(self._git(name)) for name in ("HEAD", "logs/HEAD", "index")))

    def _git(self, name: str) -> Path:
        source = self._src.resolve()
        place = next((parent for parent in (source, *source.parents) if (parent / ".git").exists()), source)
        return place / ".git" / name

    # -- the artifact store ------------------------------------------------------------------------------------

    def _store(self) -> ArtifactStore:
        return ArtifactStore(self._store_root or Installation.load().store)

    def _keep_version(self, version: str, place: Path) -> None:
        """Store a version; while the store is away runs still work here, and the next look tries again."""
        if self._store_root == "" or version in self._stored:
            return
        try:
            store = self._store()
            if not archive.is_stored(store, self.name, version):
                archive.put_version(store, self.name, version, place)
        except (EdgewrightError, OSError) as error:
            log.warning(
                "version %s of the Dag bundle %s is not in the artifact store yet: %s", version, self.name, error
            )
            return
        self._stored.add(version)

    def _prune(self, current: str) -> None:
        """Remove old versions that only an edit made; a run that still wants one fetches it from the store."""
        places = sorted(self.versions_dir.iterdir(), key=_time, reverse=True)
        limit = time.time_ns() - KEPT_SECONDS * 10**9
        for place in places[KEPT_VERSIONS:]:
            if place.name == current or _time(place) > limit or was_used(self.name, place.name):
                continue
            if place.name.startswith(".tmp-") or place.name in self._stored or self._is_stored(place.name):
                shutil.rmtree(place, ignore_errors=True)

    def _is_stored(self, version: str) -> bool:
        try:
            return self._store_root != "" and archive.is_stored(self._store(), self.name, version)
        except EdgewrightError:
            return False


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
