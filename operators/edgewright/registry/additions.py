"""Variants that are added to a version after it was registered, such as one compiled later for another target.

What was registered never changes: its digest is what publishers, services and nodes know it by. An addition lies beside
it in MLflow, ``added/<target>-<digest>/``: ``addition.json`` and the variant's files. The version's tag
``added.<target>`` holds the sha256 of ``addition.json``, which holds that of every other file; it is set last, so an
addition is there whole or not at all. Whoever downloads the version gets one release with all variants in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.artifacts import ArtifactStore, sha256_bytes
from edgewright.artifacts.digest import describe_tree
from edgewright.artifacts.locks import Lease
from edgewright.artifacts.names import check_name
from edgewright.errors import ConfigError, DamagedArtifact
from edgewright.registry.card import model_card
from edgewright.registry.client import Registry
from edgewright.registry.release import GOLDEN, MANIFEST, Facts, Variant, entry_of, write_document
from edgewright.registry.versions import ADDED, RegisteredVersion

FORMAT = "edgewright.addition/1"
DOCUMENT = "addition.json"
FOLDER = "added"
_LEASE_SECONDS = 300.0


@dataclass(frozen=True)
class Addition:
    """A variant that is to be added.

    Attributes:
        variant: The model folder.
        outputs: Its scores for the release's golden rows; ``None`` where it cannot run here.
    """

    variant: Variant
    outputs: list[list[float]] | None


def place_of(target: str, sha256: str) -> str:
    """Return the folder of an addition, below the version's files."""
    return f"{FOLDER}/{target}-{sha256[:12]}"


def add_variants(
    registry: Registry,
    store: ArtifactStore,
    version: RegisteredVersion,
    additions: Sequence[Addition],
    facts: Facts,
    scratch: Path,
) -> RegisteredVersion:
    """Add variants to a registered version; what is there already stays as it is.

    Args:
        registry: Where it is registered.
        store: Where the lease of the model is kept.
        version: The version.
        additions: What to add.
        facts: What was measured, and where they come from.
        scratch: An empty folder.

    Returns:
        The version with its new tags.

    Raises:
        ConfigError: somebody added another variant for the same target meanwhile.
        Unavailable: MLflow does not answer; trying again goes on.
    """
    with Lease(store, f"registry/{version.name}", seconds=_LEASE_SECONDS).hold(timeout=_LEASE_SECONDS + 30):
        current = registry.version(version.name, version.version)
        for addition in additions:
            target = addition.variant.target
            _refuse_second(current, target)
            folder = scratch / target
            sha256 = _write(folder, addition, version, facts)
            registry.upload(current, folder, place_of(target, sha256))
            registry.set_tags(current, _tags(current, addition, sha256))
            current = registry.version(version.name, version.version)
    return current


def _refuse_second(version: RegisteredVersion, target: str) -> None:
    if target in version.added:
        raise ConfigError(
            f"{version.name} version {version.version} got a variant for {target} meanwhile",
            hint="run this task again: it compares the two",
        )


def _write(folder: Path, addition: Addition, version: RegisteredVersion, facts: Facts) -> str:
    variant = addition.variant
    for name in variant.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(variant.folder / name, folder / name)
    document = {
        "format": FORMAT,
        "release": version.digest,
        "variant": entry_of(variant, self_tested=bool(addition.outputs)),
        "outputs": addition.outputs,
        "evaluation": {"metrics": facts.metrics, "gates": facts.gates},
        "lineage": facts.lineage,
    }
    write_document(folder / DOCUMENT, document)
    return sha256_bytes((folder / DOCUMENT).read_bytes())


def _tags(version: RegisteredVersion, addition: Addition, sha256: str) -> dict[str, str]:
    target = addition.variant.target
    targets = [name for name in version.tags.get("targets", "").split(",") if name and name != target]
    tags = {f"{ADDED}{target}": sha256, "targets": ",".join([*targets, target])}
    if addition.variant.document.get("verified", {}).get("unverified"):
        known = [name for name in version.tags.get("unverified", "").split(",") if name and name != target]
        tags["unverified"] = ",".join([*known, target])
    return tags


# -- reading -----------------------------------------------------------------------------------------------------------


def read_addition(path: Path, target: str, sha256: str, release: str, where: str) -> dict[str, Any]:
    """Return an addition's document, compared with what the version's tag says.

    Raises:
        DamagedArtifact: it is another one, cannot be read, or belongs to another release.
    """
    if sha256_bytes(path.read_bytes()) != sha256:
        raise DamagedArtifact(f"the addition for {target} does not match its tag", where=where)
    try:
        document = json.loads(path.read_bytes())
        fits = (document["format"], document["variant"]["target"], document["release"]) == (FORMAT, target, release)
        files = {check_name(name, where): str(sha) for name, sha in document["variant"]["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifact(f"the addition for {target} cannot be read: {error!r}", where=where) from error
    if not fits or not files:
        raise DamagedArtifact(f"the addition for {target} belongs to another release", where=where)
    return dict(document)


def merge(release: Path, additions: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> None:
    """Put verified additions into a downloaded release, so that it reads like any other.

    Args:
        release: The release's folder.
        additions: By target: the folder with its files, and its document.
    """
    manifest = json.loads((release / MANIFEST).read_bytes())
    golden = json.loads((release / GOLDEN).read_bytes())
    for target, (folder, document) in sorted(additions.items()):
        place = release / "variants" / target
        for name in document["variant"]["files"]:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).rename(place / name)
        manifest["variants"].append({**document["variant"], "added": document["lineage"]})
        manifest["evaluation"]["gates"] += document["evaluation"]["gates"]
        manifest["evaluation"]["metrics"] |= document["evaluation"]["metrics"]
        if document["outputs"]:
            golden["outputs"][target] = document["outputs"]
    shutil.rmtree(release / FOLDER, ignore_errors=True)
    write_document(release / GOLDEN, golden)
    (release / "README.md").write_text(model_card(manifest), encoding="utf-8")
    (release / MANIFEST).unlink()
    manifest["files"] = describe_tree(release)
    write_document(release / MANIFEST, manifest)
