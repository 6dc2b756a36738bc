"""The model registry: what is registered, aliases, roll back, verified downloads.

Aliases are MLflow's: pointers that move. MLflow keeps no history of them and moves one at a time, so this module keeps
the one before (``previous`` for ``champion``, ``previous-<alias>`` for any other) and writes every move into the tag
``alias_history.<alias>`` of the registered model.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import ConfigError, DamagedArtifact, EdgewrightError, NotFound, Unavailable
from edgewright.registry import light
from edgewright.registry.connection import Connection, error_code
from edgewright.registry.versions import DIGEST, ROLLED_BACK, RegisteredModel, RegisteredVersion, registered_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

HISTORY_LENGTH = 20
_HISTORY = "alias_history."


def previous_of(alias: str) -> str:
    """Return the alias that keeps the version which had an alias before."""
    return "previous" if alias == "champion" else f"previous-{alias}"


class Registry:
    """A model registry.

    Args:
        tracking_uri: MLflow: ``http(s)://...`` or ``sqlite:///...``. Nothing is asked before the first call.

    Raises:
        ConfigError: the address is of another kind.

    Every method may raise ``Unavailable`` within about ten seconds when MLflow does not answer.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.connection = Connection(tracking_uri)

    def __repr__(self) -> str:
        return f"Registry({self.connection!r})"

    # -- reading -------------------------------------------------------------------------------------------------

    def champion(self, name: str, alias: str = "champion") -> RegisteredVersion | None:
        """Return the version that an alias points to; ``None`` where there is no such model or alias."""
        if self.connection.is_new:
            return None
        if not self.connection.is_open:
            with contextlib.suppress(light.AskTheClient):
                return light.by_alias(self.connection.uri, name, alias)
        with self.connection.calls(f"find the {alias} of {name}") as client:
            return _by_alias(client, name, alias)

    by_alias = champion

    def version(self, name: str, version: str | int) -> RegisteredVersion:
        """Return one version.

        Raises:
            NotFound: there is no such model or version; the message lists what there is.
        """
        known: tuple[str, ...] = ()
        if not self.connection.is_new:
            with self.connection.calls(f"find version {version} of {name}") as client:
                found = _get_version(client, name, str(version))
                if found is not None:
                    return found
                known = tuple(_numbers(client, name))
        if known:
            raise NotFound(f"the model {name} has no version {version}", hint=f"it has: {', '.join(known)}")
        raise self._no_model(name)

    def versions(self, name: str) -> list[RegisteredVersion]:
        """Return all versions of a model, the newest first; empty where there is no such model."""
        if self.connection.is_new:
            return []
        with self.connection.calls(f"list the versions of {name}") as client:
            return _versions(client, name)

    def models(self) -> list[RegisteredModel]:
        """Return all registered models by name."""
        if self.connection.is_new:
            return []
        with self.connection.calls("list the models") as client:
            numbers: dict[str, list[int]] = {}
            for found in _pages(client.search_model_versions, "", 1000):
                numbers.setdefault(found.name, []).append(int(found.version))
            models = [
                RegisteredModel(
                    name=model.name,
                    versions=tuple(str(number) for number in sorted(numbers.get(model.name, ()), reverse=True)),
                    aliases={alias: str(version) for alias, version in sorted(_aliases(model).items())},
                )
                for model in _pages(client.search_registered_models, None, 100)
            ]
        return sorted(models, key=lambda model: model.name)

    def find_by_digest(self, name: str, digest: str) -> RegisteredVersion | None:
        """Return the oldest version with a release's digest, or ``None``."""
        if self.connection.is_new:
            return None
        with self.connection.calls(f"find a version of {name} by its digest") as client:
            found = _versions(client, name, f"tags.`{DIGEST}` = '{_quoted(digest)}'")
            return found[-1] if found else None

    def history(self, name: str, alias: str = "champion") -> list[dict[str, str]]:
        """Return the moves of an alias, the newest first: ``at``, ``by``, ``from``, ``to``, ``why``."""
        if self.connection.is_new:
            return []
        with self.connection.calls(f"read the history of {alias}") as client:
            model = _get_model(client, name)
            return [] if model is None else list(reversed(_history(model, alias)))

    def download(self, version: RegisteredVersion, dest: Path) -> Path:
        """Fetch a version's release, every file compared with the manifest.

        Args:
            version: What to fetch.
            dest: Folder (made if needed) in which ``release`` is put.

        Returns:
            The folder of the release.

        Raises:
            DamagedArtifact: what came is not what was registered, or is no release of ours.
            StoreError: the folder cannot be written.
        """
        from edgewright.registry.download import download_release

        with self.connection.calls(f"download {version.name} version {version.version}") as client:
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            uri = client.get_model_version_download_uri(version.name, version.version)
            files = get_artifact_repository(uri, tracking_uri=self.connection.uri, registry_uri=self.connection.uri)

            def fetch(name: str, folder: Path) -> Path:
                try:
                    return Path(files.download_artifacts(artifact_path=name, dst_path=str(folder)))
                except Exception as error:
                    raise self._fetch_error(error, name, version.uri) from error

            return download_release(fetch, dest, digest=version.digest, where=version.uri, added=version.added)

    def upload(self, version: RegisteredVersion, folder: Path, place: str) -> None:
        """Put the files of a folder beside a version's own, at a place where nothing is yet."""
        with self.connection.calls(f"add to {version.name} version {version.version}") as client:
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            uri = client.get_model_version_download_uri(version.name, version.version)
            files = get_artifact_repository(uri, tracking_uri=self.connection.uri, registry_uri=self.connection.uri)
            files.log_artifacts(str(folder), place)

    def set_tags(self, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version, in their order."""
        with self.connection.calls(f"tag {version.name} version {version.version}") as client:
            for name, value in tags.items():
                client.set_model_version_tag(version.name, version.version, name, value)

    def drop_tags(self, version: RegisteredVersion, names: Iterable[str]) -> None:
        """Remove tags of a version."""
        with self.connection.calls(f"remove tags of {version.name} version {version.version}") as client:
            for name in names:
                client.delete_model_version_tag(version.name, version.version, name)

    def _fetch_error(self, error: Exception, name: str, where: str) -> Exception:
        if isinstance(error, EdgewrightError):
            return error
        missing = isinstance(error, FileNotFoundError) or error_code(error) == "RESOURCE_DOES_NOT_EXIST"
        if missing or getattr(getattr(error, "response", None), "status_code", None) == 404 or "404" in str(error):
            return DamagedArtifact(f"{name} is missing in the registry", where=where)
        if isinstance(error, OSError) and error.errno == 28:
            return error
        return Unavailable(f"{name} cannot be downloaded: {error}", where=where)

    # -- aliases -------------------------------------------------------------------------------------------------

    def set_alias(self, name: str, alias: str, version: str | int, *, by: str = "", why: str = "") -> RegisteredVersion:
        """Move an alias to a version; the version that had it stays resolvable as ``previous``.

        Args:
            name: Registered model.
            alias: The alias.
            version: Where to.
            by: Who asked; default: user and host of this process.
            why: For the history.

        Raises:
            NotFound: there is no such model or version.
            ConfigError: MLflow does not take the alias's name (names like ``v1`` are reserved).
        """
        target = self.version(name, version)
        with self.connection.calls(f"set the alias {alias} of {name}") as client:
            before = _by_alias(client, name, alias)
            if ROLLED_BACK in target.tags:
                client.delete_model_version_tag(name, target.version, ROLLED_BACK)
            if before is None or before.version != target.version:
                if before is not None:
                    # first, so that the old one is never without a name
                    client.set_registered_model_alias(name, previous_of(alias), before.version)
                client.set_registered_model_alias(name, alias, target.version)
                _record(client, name, alias, before, target, by or _me(), why or "set by hand")
        return self.version(name, target.version)

    def roll_back(self, name: str, alias: str = "champion", *, by: str = "") -> RegisteredVersion:
        """Swap an alias with the version before, and say in a tag who did it and when.

        The version that is left gets the tag ``rolled_back``: publishing the same models again does not promote it.

        Returns:
            The version that has the alias now.

        Raises:
            NotFound: there is no such model or alias, or nothing before it.
        """
        by = by or _me()
        current = self.champion(name, alias)
        if current is None:
            raise NotFound(f"the model {name} has no alias {alias}", hint="nothing to roll back")
        target = self.champion(name, previous_of(alias))
        if target is None or target.version == current.version:
            raise NotFound(
                f"the model {name} has no version before version {current.version}",
                hint=f"the alias {previous_of(alias)} would say which; move {alias} by hand instead",
            )
        with self.connection.calls(f"roll {name} back") as client:
            note = json.dumps({"at": _now(), "by": by, "alias": alias, "to": target.version})
            client.set_model_version_tag(name, current.version, ROLLED_BACK, note)
            if ROLLED_BACK in target.tags:
                client.delete_model_version_tag(name, target.version, ROLLED_BACK)
            client.set_registered_model_alias(name, alias, target.version)
            client.set_registered_model_alias(name, previous_of(alias), current.version)
            _record(client, name, alias, current, target, by, "rolled back")
        return self.version(name, target.version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias; nothing happens where there is none."""
        if self.champion(name, alias) is None:
            return
        with self.connection.calls(f"remove the alias {alias} of {name}") as client:
            client.delete_registered_model_alias(name, alias)

    def _no_model(self, name: str) -> NotFound:
        known = ", ".join(model.name for model in self.models()) or "none"
        return NotFound(f"no registered model {name}", hint=f"there are: {known}")


# -- MLflow's calls ----------------------------------------------------------------------------------------------------


def _by_alias(client: MlflowClient, name: str, alias: str) -> RegisteredVersion | None:
    try:
        return registered_version(client.get_model_version_by_alias(name, alias))
    except Exception as error:
        if _is_absent(error, "alias"):
            return None
        raise


def _get_version(client: MlflowClient, name: str, version: str) -> RegisteredVersion | None:
    if not version.isdigit():
        raise ConfigError(f"not a version: {version!r}", hint='versions are whole numbers, such as "3"')
    try:
        return registered_version(client.get_model_version(name, version))
    except Exception as error:
        if _is_absent(error):
            return None
        raise


def _get_model(client: MlflowClient, name: str) -> Any | None:
    try:
        return client.get_registered_model(name)
    except Exception as error:
        if _is_absent(error):
            return None
        raise


def _is_absent(error: Exception, what: str = "") -> bool:
    code = error_code(error)
    # an alias that does not exist is an INVALID_PARAMETER_VALUE in MLflow, a model a RESOURCE_DOES_NOT_EXIST
    return code == "RESOURCE_DOES_NOT_EXIST" or bool(
        what and code == "INVALID_PARAMETER_VALUE" and f"{what}" in str(error).lower() and "not found" in str(error)
    )


def _versions(client: MlflowClient, name: str, condition: str = "") -> list[RegisteredVersion]:
    model = _get_model(client, name)
    if model is None:
        return []
    query = f"name = '{_quoted(name)}'" + (f" and {condition}" if condition else "")
    aliases = _aliases(model)
    found = [registered_version(item, aliases) for item in _pages(client.search_model_versions, query, 1000)]
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def _numbers(client: MlflowClient, name: str) -> list[str]:
    return [version.version for version in _versions(client, name)]


def _aliases(model: Any) -> dict[str, str]:
    return {str(alias): str(version) for alias, version in (model.aliases or {}).items()}


def _pages(search: Any, query: str | None, size: int) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(filter_string=query or None, max_results=size, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _quoted(text: str) -> str:
    if "'" in text or "\\" in text:
        raise ConfigError(f"not a name: {text!r}", hint="letters, digits, dots, dashes, underscores")
    return text


# -- history -----------------------------------------------------------------------------------------------------------


def _me() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _history(model: Any, alias: str) -> list[dict[str, str]]:
    try:
        found = json.loads((model.tags or {}).get(f"{_HISTORY}{alias}", "[]"))
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _record(
    client: MlflowClient,
    name: str,
    alias: str,
    before: RegisteredVersion | None,
    after: RegisteredVersion,
    by: str,
    why: str,
) -> None:
    entry = {"at": _now(), "by": by, "from": before.version if before else "", "to": after.version, "why": why[:100]}
    entries = [*_history(client.get_registered_model(name), alias), entry][-HISTORY_LENGTH:]
    client.set_registered_model_tag(name, f"{_HISTORY}{alias}", json.dumps(entries))
