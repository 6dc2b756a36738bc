"""Release folders on this machine: ``<home>/models/<name>/<version>/``, complete or not there at all."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from edgewright.errors import ConfigError, DamagedArtifact, DeployRejected, SystemFault
from edgewright.serving.release import Release, read_manifest, read_release, variant_entries
from edgewright.serving.sources import Source

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")


def check_name(name: str) -> str:
    """Return a model's name that is safe as a folder's name.

    Raises:
        ConfigError: it is not.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"not a model's name: {name!r}", hint="letters, digits, dots, dashes, underscores")
    return name


def check_version(version: str) -> str:
    """Return a version that is safe as a folder's name.

    Raises:
        ConfigError: it is not a number.
    """
    if not VERSION.fullmatch(version):
        raise ConfigError(f"not a version: {version!r}", hint='versions are whole numbers, such as "3"')
    return version


class Library:
    """Keeps verified releases.

    Args:
        home: The service's folder.
        source: Where releases come from.
    """

    def __init__(self, home: Path, source: Source) -> None:
        self.root = home / "models"
        self.source = source

    def folder(self, name: str, version: str) -> Path:
        """Return where a version is kept."""
        return self.root / check_name(name) / check_version(version)

    def fetch(self, name: str, version: str, variant: str | None, wanted: str | None = None) -> Release:
        """Return a verified release, downloaded unless the same one is here already.

        Args:
            name: The model.
            version: Its version.
            variant: Which variant; ``None``: the release's default.
            wanted: Digest that the release must have; ``None``: whatever the registry says.

        Raises:
            NotFound: the registry has no such version.
            Unavailable: the registry does not answer.
            DamagedArtifact: what came does not match its digests.
            DeployRejected: the variant is not there or cannot be served.
        """
        folder, digest = self.folder(name, version), self.source.digest(name, version)
        if wanted and digest != wanted:
            raise DeployRejected(
                f"version {version} in the service's registry has the digest {digest}, wanted was {wanted}",
                hint="the service and the pipeline use different registries",
            )
        if self._matches(folder, digest, variant):
            with contextlib.suppress(DamagedArtifact):  # damaged since: fetched again below
                return read_release(folder, variant)
        self._download(name, version, folder, digest, variant)
        return read_release(folder, variant)

    def open(self, name: str, version: str, variant: str, digest: str) -> Release:
        """Return a release that is here already, without asking the registry.

        Raises:
            DamagedArtifact: it is not here, or no longer what was downloaded.
        """
        release = read_release(self.folder(name, version), variant)
        if digest and release.manifest.digest != digest:
            raise DamagedArtifact(f"the release has another digest than the one that was served: {name} {version}")
        return release

    @staticmethod
    def _matches(folder: Path, digest: str, variant: str | None) -> bool:
        """Whether a folder holds the release, and the variant, which may have been added to it since."""
        try:
            manifest = read_manifest(folder)
            return manifest.digest == digest and (variant is None or variant in variant_entries(manifest))
        except DamagedArtifact:
            return False

    def _download(self, name: str, version: str, folder: Path, digest: str, variant: str | None) -> None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as scratch:
                found = self.source.download(name, version, Path(scratch))
                came = read_release(found, variant)
                if digest and came.manifest.digest != digest:
                    raise DamagedArtifact(f"what came has the digest {came.manifest.digest}, expected was {digest}")
                if folder.exists():
                    folder.rename(Path(scratch) / "replaced")
                found.rename(folder)
        except OSError as error:
            raise SystemFault(
                f"the release cannot be stored: {error.strerror or error}",
                where=str(folder),
                hint="the disk is full: free some space" if error.errno == 28 else None,
            ) from error

    def keep_only(self, name: str, versions: Iterable[str]) -> None:
        """Remove the versions of a model that are neither served nor the ones before; failing to is harmless."""
        kept = set(versions)
        base = self.root / check_name(name)
        if not base.is_dir():
            return
        for path in base.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        if not kept:
            shutil.rmtree(base, ignore_errors=True)
