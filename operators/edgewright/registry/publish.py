"""Register a release once: idempotent by digest, safe for two publishers, nothing half-registered, alias last.

The order, and what is left when the worker dies after each part:

1. a LoggedModel with the digest as a tag: the next try of the same task finds it and fills it with the same bytes
   again; one of another run stays, unused and harmless (its files would tell of another lineage);
2. its files, then the status ``READY``: the same;
3. the version, with all its tags in the same call: found by its digest, nothing is made again;
4. ``previous``, then the alias: moved by the next try.

A version therefore never exists without its files. Publishers of one model wait for each other by a lease in the
artifact store; since a lease can lapse, the versions with the digest are counted after one was made, and the higher
number goes.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.artifacts import ArtifactStore, digest_json
from edgewright.artifacts.locks import Lease
from edgewright.registry.client import Registry, _quoted, _versions
from edgewright.registry.connection import error_code
from edgewright.registry.versions import DATA_TIME, DIGEST, ROLLED_BACK, RegisteredVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("edgewright.registry")

_LEASE_SECONDS = 300.0
_NAME_TAG = "edgewright.release"
_IDENTITY_TAG = "edgewright.identity"


@dataclass(frozen=True)
class Publishing:
    """What is to be registered.

    Attributes:
        name: Registered model.
        digest: Digest of the release.
        folder: The release.
        alias: Alias to move; ``None`` for none.
        experiment: MLflow experiment for the LoggedModel where the training run is not known.
        run_id: MLflow run that trained the model; empty where it is not known.
        data_time: How new the data are; ``None`` where nobody knows.
        description: Text of the version.
        tags: Tags of a new version.
        own_tags: The user's tags, set on a version that is there already as well.
        by: Who publishes: the task of the run; for the history of the alias, and to find what an earlier try left.
    """

    name: str
    digest: str
    folder: Path
    alias: str | None = "champion"
    experiment: str = "edgewright"
    run_id: str = ""
    data_time: str | None = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    own_tags: Mapping[str, str] = field(default_factory=dict)
    by: str = ""


@dataclass(frozen=True)
class Published:
    """What came of it.

    Attributes:
        version: The version.
        created: Whether it was made now.
        moved: Whether the alias moved now.
        notes: Sentences for people.
    """

    version: RegisteredVersion
    created: bool
    moved: bool
    notes: list[str]


def publish(registry: Registry, store: ArtifactStore, what: Publishing) -> Published:
    """Register a release, or find the version that is there, and move the alias.

    Raises:
        Unavailable: MLflow does not answer; nothing is half-registered, and trying again goes on.
        ConfigError: MLflow refuses a name or an alias.
        Busy: somebody else publishes this model and does not come to an end.
    """
    notes: list[str] = []
    with Lease(store, f"registry/{what.name}", seconds=_LEASE_SECONDS).hold(timeout=_LEASE_SECONDS + 30):
        version = registry.find_by_digest(what.name, what.digest)
        created = version is None
        if version is None:
            version, created = _create(registry, what, notes)
        if created:
            notes.append(f"registered {what.name} version {version.version}")
        else:
            notes.append(f"the same models are registered as {what.name} version {version.version} already; reused")
            _refresh(registry, what, version)
        moved = _move_alias(registry, store, what, version, notes)
        return Published(registry.version(what.name, version.version), created, moved, notes)


# -- the version ---------------------------------------------------------------------------------------------------


def _create(registry: Registry, what: Publishing, notes: list[str]) -> tuple[RegisteredVersion, bool]:
    with registry.connection.calls(f"register {what.name}") as client:
        _ensure_model(client, what.name)
        run_id, experiment_id = _training_run(client, what, notes)
        experiment_id = experiment_id or _experiment(client, registry, what.experiment)
        model = _logged_model(client, what, experiment_id, run_id, notes)
        client.log_model_artifacts(model.model_id, str(what.folder))
        model = client.finalize_logged_model(model.model_id, "READY")
        # a database without a server resolves models:/ through MLflow's global address, which is not ours to set
        source = f"models:/{model.model_id}" if registry.connection.is_server else model.artifact_location
        made = client.create_model_version(
            what.name,
            source,
            run_id=run_id or None,
            tags=_all_tags(what),
            description=what.description or None,
            await_creation_for=0,
            model_id=model.model_id if registry.connection.is_server or run_id else None,
        )
        number = str(made.version)
        same = _versions(client, what.name, f"tags.`{DIGEST}` = '{_quoted(what.digest)}'")
        first = same[-1]
        if first.version != number:
            client.delete_model_version(what.name, number)
            notes.append(f"another run registered the same models at the same time; version {number} was taken back")
        return first, first.version == number


def _all_tags(what: Publishing) -> dict[str, str]:
    tags = {**what.own_tags, **what.tags, DIGEST: what.digest}
    if what.data_time:
        tags[DATA_TIME] = what.data_time
    return {name: value for name, value in tags.items() if value != ""}


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise


def _training_run(client: MlflowClient, what: Publishing, notes: list[str]) -> tuple[str, str]:
    """Return the training run and its experiment; empty where MLflow does not have the run any more."""
    if not what.run_id:
        return "", ""
    try:
        info = client.get_run(what.run_id).info
    except Exception as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        notes.append(f"MLflow has no run {what.run_id}, so the version names no training run")
        return "", ""
    if info.lifecycle_stage != "active":
        return str(info.run_id), ""
    return str(info.run_id), str(info.experiment_id)


def _experiment(client: MlflowClient, registry: Registry, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        database = registry.connection.database
        # beside the database: MLflow's own choice would be a folder below the working directory
        place = database and (database.parent / "mlflow-artifacts" / re.sub(r"[^\w.-]", "_", name)).resolve().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place or None))
        except Exception as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _logged_model(client: MlflowClient, what: Publishing, experiment_id: str, run_id: str, notes: list[str]) -> Any:
    """Return the LoggedModel that an earlier try of the same task left without a version, or a new one."""
    tags = {DIGEST: what.digest, _NAME_TAG: what.name, _IDENTITY_TAG: digest_json(what.by)}
    query = " and ".join(f"tags.`{key}` = '{_quoted(value)}'" for key, value in tags.items())
    left = client.search_logged_models([experiment_id], filter_string=query, max_results=1)
    if left:
        notes.append(f"an earlier try left {left[0].model_id} without a version; it was completed")
        return left[0]
    return client.create_logged_model(
        experiment_id, name=what.name, source_run_id=run_id or None, tags=tags, model_type="release"
    )


def _refresh(registry: Registry, what: Publishing, version: RegisteredVersion) -> None:
    """Bring a version that is there up to date: the user's tags, and how new the data are that led to it again."""
    tags = {name: value for name, value in what.own_tags.items() if version.tags.get(name) != value}
    if what.data_time and is_older(version.tags.get(DATA_TIME), what.data_time):
        tags[DATA_TIME] = what.data_time
    if not tags:
        return
    with registry.connection.calls(f"tag {what.name}") as client:
        for name, value in tags.items():
            client.set_model_version_tag(what.name, version.version, name, value)


# -- the alias -----------------------------------------------------------------------------------------------------


def is_older(first: str | None, second: str | None) -> bool:
    """Whether one ISO time is before another; no time at all is before every time."""
    if second is None:
        return False
    return first is None or _time(first) < _time(second)


def _time(text: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def note_data_time(store: ArtifactStore, name: str, version: str, data_time: str | None) -> None:
    """Keep how new the data are that led to a registered version again, where nothing else of it changed."""
    key = f"registry/{name}/{version}/data_time.json"
    known = store.read_json(key)
    if data_time and is_older(known, data_time):
        store.write_json(key, data_time)


def _data_time(store: ArtifactStore, holder: RegisteredVersion) -> str | None:
    """Return how new the data are that stand behind a version: its tag, or what was noted since."""
    tag = holder.tags.get(DATA_TIME)
    noted: str | None = store.read_json(f"registry/{holder.name}/{holder.version}/data_time.json")
    return noted if noted and is_older(tag, noted) else tag


def _move_alias(
    registry: Registry, store: ArtifactStore, what: Publishing, version: RegisteredVersion, notes: list[str]
) -> bool:
    if what.alias is None:
        return False
    holder = registry.champion(what.name, what.alias)
    if holder is not None and holder.version == version.version:
        notes.append(f"version {version.version} is the {what.alias} already")
        return False
    if ROLLED_BACK in version.tags:
        notes.append(
            f"version {version.version} was rolled back {_when(version.tags[ROLLED_BACK])}, so the alias {what.alias} "
            f"stays {f'at version {holder.version}' if holder else 'unset'}; move it by hand to use the version again"
        )
        return False
    behind = _data_time(store, holder) if holder is not None else None
    if holder is not None and what.data_time and is_older(what.data_time, behind):
        notes.append(
            f"this run's data ({what.data_time}) are older than those of version {holder.version} "
            f"({behind}), so the alias {what.alias} stays there"
        )
        return False
    registry.set_alias(what.name, what.alias, version.version, by=what.by, why="published")
    words = f", before it was version {holder.version}" if holder else ""
    notes.append(f"{what.alias} is version {version.version} now{words}")
    return True


def _when(tag: str) -> str:
    try:
        note = json.loads(tag)
        return f"at {note['at']} by {note['by']}"
    except (ValueError, KeyError, TypeError):
        return "before"


__all__ = ["Published", "Publishing", "is_older", "note_data_time", "publish"]
