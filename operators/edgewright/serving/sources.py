"""Where releases come from: the model registry, or a plain folder of releases where there is none.

A registry is an MLflow address. ``file:///folder`` (which MLflow itself refuses) names a folder with
``<name>/<version>/`` release folders, for a machine that never sees a registry: an edge box fed by a memory stick.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgewright.errors import NotFound
from edgewright.serving.release import read_manifest

if TYPE_CHECKING:
    from edgewright.registry import Registry


class Source(Protocol):
    """What the service asks of a registry. All calls may block."""

    def resolve(self, name: str, alias: str) -> str:
        """Return the version that an alias points to."""
        ...

    def digest(self, name: str, version: str) -> str:
        """Return the digest of a version's release."""
        ...

    def download(self, name: str, version: str, destination: Path) -> Path:
        """Fetch a version's release below ``destination`` and return its folder."""
        ...


def open_source(tracking_uri: str) -> Source:
    """Return the source that an address means."""
    if tracking_uri.startswith("file://"):
        return FolderSource(Path(tracking_uri.removeprefix("file://")))
    return RegistrySource(tracking_uri)


class FolderSource:
    """Release folders at ``<root>/<name>/<version>``; the highest version counts as every alias."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def resolve(self, name: str, alias: str) -> str:
        """Return the highest version.

        Raises:
            NotFound: there is no such model.
        """
        return max(self._versions(name), key=int)

    def digest(self, name: str, version: str) -> str:
        """Return the digest in the manifest of a version.

        Raises:
            NotFound: there is no such model or version.
        """
        return read_manifest(self._folder(name, version)).digest

    def download(self, name: str, version: str, destination: Path) -> Path:
        """Copy a version's folder.

        Raises:
            NotFound: there is no such model or version.
        """
        target = destination / "release"
        shutil.copytree(self._folder(name, version), target)
        return target

    def _versions(self, name: str) -> list[str]:
        folder = self.root / name
        found = [p.name for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
        if not found:
            known = sorted(p.name for p in self.root.iterdir() if p.is_dir()) if self.root.is_dir() else []
            raise NotFound(f"no model {name} in {self.root}", hint=f"there are: {', '.join(known) or 'none'}")
        return sorted(found, key=int)

    def _folder(self, name: str, version: str) -> Path:
        versions = self._versions(name)
        if version not in versions:
            raise NotFound(f"the model {name} has no version {version}", hint=f"it has: {', '.join(versions)}")
        return self.root / name / version


class RegistrySource:
    """The MLflow registry. Its client is imported at the first call: a service that only restarts never needs it."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._opened: Registry | None = None

    @property
    def _registry(self) -> Registry:
        if self._opened is None:
            from edgewright.registry import Registry

            self._opened = Registry(self.tracking_uri)
        return self._opened

    def resolve(self, name: str, alias: str) -> str:
        """Return the version that an alias points to.

        Raises:
            NotFound: there is no such model or alias.
        """
        version = self._registry.by_alias(name, alias)
        if version is not None:
            return version.version
        raise NotFound(f"the model {name} has no alias {alias}", hint="publish a version with this alias first")

    def digest(self, name: str, version: str) -> str:
        """Return the digest of a version; empty where its registered tags hold none.

        Raises:
            NotFound: there is no such model or version.
        """
        return self._registry.version(name, version).digest

    def download(self, name: str, version: str, destination: Path) -> Path:
        """Fetch a version's release.

        Raises:
            NotFound: there is no such model or version.
            Unavailable: the registry does not answer.
        """
        return self._registry.download(self._registry.version(name, version), destination)
