"""Bundles that ``publish`` writes to where nodes look for them: one file a variant, by temporary name and rename."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

from edgewright.artifacts.digest import sha256_file
from edgewright.bundles.oci import holds_bundle, is_oci, open_artifacts, push_bundle
from edgewright.bundles.pack import MANIFEST, SIGNATURE, build_bundle, write_archive
from edgewright.bundles.signing import sign
from edgewright.errors import ConfigError, StoreError
from edgewright.spec.steps.publish import BundleConfig
from edgewright.steps.connections import Credentials
from edgewright.steps.context import StepContext

#: Path of the private key; a key has no place in YAML.
KEY = "EDGEWRIGHT_SIGNING_KEY"


def check_offer(config: BundleConfig) -> None:
    """Check that there are a key and a connection where they are needed, before anything is registered.

    Raises:
        ConfigError: one is missing, or the place cannot be used.
    """
    _place(config)
    if config.sign and not Path(os.environ.get(KEY) or "/nothing").is_file():
        raise ConfigError(
            "bundles are to be signed, and there is no key", where="bundle.sign",
            hint=f"set {KEY} to the path of a private key in PEM where this task runs",
        )  # fmt: skip


def offer_bundles(config: BundleConfig, context: StepContext, release: Path, version: str) -> dict[str, str]:
    """Write the bundles of a registered version; return ``{target: address}``.

    Raises:
        ConfigError: a target is no variant of the release, or the place cannot be used.
        StoreError: the place cannot be written.
    """
    manifest = json.loads((release / MANIFEST).read_bytes())
    targets = config.targets or sorted(v["target"] for v in manifest["variants"] if v["format"] != "pickle")
    place = _place(config)
    written = {}
    for target in targets:
        folder = context.folder(f"bundle-{target}")
        said = build_bundle(release, folder, target=target, version=version)
        name = f"{said['name']}-{version}-{target}.tar"
        if place.holds(name, (folder / MANIFEST).read_bytes(), signed=config.sign):
            context.note("%s is offered already", name)
        else:
            if config.sign:
                signature = context.scratch / f"{target}.sig"
                sign(folder, signature, private_key=Path(os.environ[KEY]))
                signature.rename(folder / SIGNATURE)
            archive = context.scratch / name
            write_archive(folder, archive)
            place.put(archive, name)
            context.note("%s: %s bytes, sha256 %s", name, archive.stat().st_size, sha256_file(archive))
        written[target] = place.address_of(name)
    return written


def _place(config: BundleConfig) -> _Place | _Repository:
    if not is_oci(config.to):
        return _Place(config.to)
    login = None
    if config.connection is not None:
        found = Credentials.of(config.connection, "docker://USER:PASSWORD@/")
        login = (found.login, found.password)
    return _Repository(config.to, login)


class _Repository:
    """OCI artifacts, tagged like the files without their ending."""

    def __init__(self, address: str, login: tuple[str, str] | None) -> None:
        self.address = address.rstrip("/")
        self._artifacts = open_artifacts(self.address, login)

    def address_of(self, name: str) -> str:
        """Return where a bundle is."""
        return f"{self.address}:{name.removesuffix('.tar')}"

    def holds(self, name: str, manifest: bytes, *, signed: bool) -> bool:
        """Whether the same bundle is there already."""
        return holds_bundle(self._artifacts, name.removesuffix(".tar"), manifest, signed=signed)

    def put(self, archive: Path, name: str) -> None:
        """Push a bundle: a node sees it whole or not at all."""
        push_bundle(self._artifacts, archive, name.removesuffix(".tar"))


class _Place:
    """A folder, or a prefix of an object store."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address.rstrip("/")
        try:
            self._fs, self._base = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"the place cannot be used: {error}", where="bundle.to") from error

    def address_of(self, name: str) -> str:
        """Return where a bundle is."""
        return f"{self.address}/{name}"

    def holds(self, name: str, manifest: bytes, *, signed: bool) -> bool:
        """Whether the same bundle is there already; a signature differs each time and is not compared."""
        try:
            with self._fs.open(f"{self._base}/{name}", "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
                found = archive.extractfile(MANIFEST)
                has_signature = SIGNATURE in archive.getnames()
                return found is not None and found.read() == manifest and has_signature == signed
        except (OSError, KeyError, tarfile.TarError):
            return False

    def put(self, archive: Path, name: str) -> None:
        """Write a file: a node sees it whole or not at all."""
        target: Any = f"{self._base}/{name}"
        try:
            if "file" in self._fs.protocol:
                temporary = Path(self._base) / f".tmp-{name}"
                temporary.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(archive.read_bytes())
                temporary.replace(target)
            else:
                self._fs.put_file(str(archive), target)  # object stores show what is whole
        except OSError as error:
            raise StoreError(f"the bundle cannot be offered: {error.strerror or error}", where=self.address) from error
