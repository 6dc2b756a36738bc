"""Open a bundle that somebody else may have made: nothing in it is believed before it was checked.

In this order: the archive's shape and size, the signature, the manifest and every file's sha256, what the model is made
of, and at last the model itself, in a child process with bounds.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.artifacts.digest import list_files, sha256_file
from edgewright.artifacts.names import check_name
from edgewright.bundles import signing
from edgewright.bundles.limits import Limits
from edgewright.bundles.pack import FORMAT, GOLDEN, MANIFEST, MODEL, SIGNATURE
from edgewright.bundles.selftest import run_self_test
from edgewright.errors import ConfigError, DamagedArtifact, DeployRejected
from edgewright.serving.graph_safety import check_model, opsets_of


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened.

    Attributes:
        folder: Its files.
        manifest: Its manifest.
        signed: Whether its signature was compared with a key.
        checks: What was checked, in words.
    """

    folder: Path
    manifest: dict[str, Any]
    signed: bool
    checks: list[str] = field(default_factory=list)


def open_bundle(
    path: Path, folder: Path, *, public_key: Path | None = None, limits: Limits | None = None, run: bool = True
) -> Bundle:
    """Unpack and check a bundle.

    Args:
        path: The archive.
        folder: Does not exist yet; it is there afterwards only if everything was right.
        public_key: Whose signature it must have; ``None``: whoever's, or none.
        limits: How much it may ask for.
        run: Whether to try the model.

    Raises:
        ConfigError: there is no such file, or the key cannot be used.
        DamagedArtifact: the archive, the signature, the manifest or a file is not what it should be.
        DeployRejected: the model holds what no node should run, or does not answer as it did.
    """
    limits = limits or Limits()
    try:
        checks = _unpack(path, folder, limits)
        signed = _check_signature(folder, public_key)
        checks.append("the signature is that of the key" if signed else "the signature was not compared with a key")
        manifest = _check_manifest(folder, limits)
        checks.append(f"{len(manifest['files'])} files have the sha256 of the manifest")
        checks += _check_models(folder, manifest, limits)
        if run:
            checks.append(_try(folder, manifest, limits))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Bundle(folder, manifest, signed, checks)


# -- the archive ---------------------------------------------------------------------------------------------------


def _unpack(path: Path, folder: Path, limits: Limits) -> list[str]:
    if not path.is_file():
        raise ConfigError(f"no such bundle: {path}")
    folder.mkdir(parents=True)
    total = count = 0
    try:
        # without compression nothing unfolds: what is read is what there is
        with tarfile.open(path, mode="r:") as archive:
            for member in archive:
                total, count = total + member.size, count + 1
                _check_member(member, path)
                if total > limits.total_bytes or count > limits.files:
                    raise DamagedArtifact(
                        f"the bundle is larger than {limits.total_bytes >> 20} MiB or {limits.files} files",
                        where=str(path),
                    )
                _extract(archive, member, folder, path)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DamagedArtifact(f"not a bundle: {error}", where=str(path)) from error
    return [f"{count} files, {total:,} bytes"]


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    if not member.isreg():
        raise DamagedArtifact(f"the bundle holds something that is no plain file: {member.name}", where=str(path))
    check_name(member.name, str(path))


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: Path) -> None:
    target = folder / member.name
    source = archive.extractfile(member)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:  # a name that comes twice is refused
            shutil.copyfileobj(source, file)  # type: ignore[arg-type]  # a regular member has contents
    except (FileExistsError, NotADirectoryError) as error:
        raise DamagedArtifact(f"the bundle holds {member.name} twice", where=str(path)) from error
    if target.stat().st_size != member.size:
        raise DamagedArtifact(f"{member.name} is cut off", where=str(path))


# -- what it says about itself -------------------------------------------------------------------------------------


def _check_signature(folder: Path, public_key: Path | None) -> bool:
    """Move the signature beside the folder, which it covers whole, and compare it; return whether it was compared."""
    signature = folder / SIGNATURE
    if public_key is None:
        return False
    if not signature.is_file():
        raise DamagedArtifact("the bundle is not signed", hint="sign it: edgewright bundle ... --sign KEY")
    beside = folder.with_name(f"{folder.name}.sig")
    signature.rename(beside)
    try:
        signing.verify(folder, beside, public_key=public_key)
    finally:
        beside.rename(signature)
    return True


def _check_manifest(folder: Path, limits: Limits) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file() or path.stat().st_size > limits.manifest_bytes:
        raise DamagedArtifact(f"not a bundle: {MANIFEST} is missing or too large")
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise DamagedArtifact(f"not a bundle of ours: its format is {manifest['format']!r}")
        named = {str(name): str(entry["sha256"]) for name, entry in manifest["files"].items()}
        model = manifest["model"]["file"]
        if manifest["model"]["format"] == "pickle" or named.get(model) != manifest["model"]["sha256"]:
            raise DamagedArtifact("the manifest contradicts itself about the model")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedArtifact(f"the manifest cannot be read: {error!r}") from error
    found = set(list_files(folder)) - {MANIFEST, SIGNATURE}
    if found != set(named):
        apart = ", ".join(sorted(found ^ set(named))[:5])
        raise DamagedArtifact(f"the manifest and the bundle do not name the same files: {apart}")
    for name, sha256 in named.items():
        if sha256_file(folder / name) != sha256:
            raise DamagedArtifact(f"{name} does not match its sha256")
    return dict(manifest)


# -- what it is made of --------------------------------------------------------------------------------------------


def _check_models(folder: Path, manifest: dict[str, Any], limits: Limits) -> list[str]:
    checked = 0
    for path in sorted((folder / MODEL).rglob("*.onnx")):
        data = path.read_bytes()
        check_model(data)
        for domain, version in opsets_of(data).items():
            newest = limits.opsets.get(domain)
            if newest is not None and version > newest:
                raise DeployRejected(
                    f"{path.name} uses version {version} of the operators {domain}; at most {newest} is run here"
                )
        checked += 1
    pickles = [path.name for path in (folder / MODEL).rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
    if pickles:
        raise DeployRejected(f"the bundle holds a pickle: {pickles[0]}")
    return [f"{checked} ONNX files hold standard operators and no outside data"] if checked else []


def _try(folder: Path, manifest: dict[str, Any], limits: Limits) -> str:
    if manifest["model"]["format"] != "onnx":
        return f"the model was not run: this machine has no runtime for {manifest['model']['format']}"
    if not (folder / GOLDEN).is_file():
        return "the model was not run: the bundle has no self-test"
    rows = run_self_test(folder, limits)
    return f"the model answers {rows} rows as it did when it was published"
