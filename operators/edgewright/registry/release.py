"""Build a release: all variants of a model in one folder, with its manifest, self-test and model card.

Everything in the folder follows from the models, the golden rows and the lineage; two builds give the same bytes. The
release's digest covers name, signature and variants only, so the same models always have the same digest, whichever
run publishes them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.artifacts import digest_json
from edgewright.artifacts.digest import describe_tree
from edgewright.artifacts.store import MANIFEST as STORE_MANIFEST
from edgewright.errors import ConfigError, DamagedArtifact
from edgewright.registry.card import model_card
from edgewright.registry.mlmodel import signature, write_mlmodel

FORMAT = "edgewright.release/1"
MANIFEST = "manifest.json"
GOLDEN = "golden.json"
#: What a target may be called: it is a folder's name.
TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Variant:
    """One model folder as it was handed in.

    Attributes:
        folder: The folder, with ``model.json``.
        document: What ``model.json`` says.
        files: What :func:`~edgewright.artifacts.digest.describe_tree` found.
    """

    folder: Path
    document: dict[str, Any]
    files: dict[str, dict[str, Any]]

    @property
    def target(self) -> str:
        """What it was compiled for."""
        return str(self.document["target"])


@dataclass(frozen=True)
class Golden:
    """The self-test.

    Attributes:
        inputs: Rows, feature -> value; missing values are ``None``.
        outputs: Scores of each variant that can be run here, by target: ``[rows][classes]``, or ``[rows][1]``.
        source: Where the rows are from, in words.
    """

    inputs: list[dict[str, Any]]
    outputs: dict[str, list[list[float]]]
    source: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known about a release beside its models; nothing of it changes the digest.

    Attributes:
        description: A sentence for people.
        metrics: What was measured, by name.
        gates: Verdicts: ``metric``, ``operator``, ``limit``, ``value``, ``passed``, ``note``, ``task``.
        lineage: Where it comes from: run, code, data.
    """

    description: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    gates: list[dict[str, Any]] = field(default_factory=list)
    lineage: dict[str, Any] = field(default_factory=dict)


def read_variants(folders: Sequence[Path]) -> list[Variant]:
    """Read model folders; one that occurs twice is taken once, at its first place.

    Raises:
        ConfigError: two differ and have the same target, or they are not variants of one model.
        DamagedArtifact: a folder is no model.
    """
    found: dict[str, Variant] = {}
    for folder in folders:
        variant = _read_variant(folder)
        known = found.setdefault(variant.target, variant)
        if _model_files(known) == _model_files(variant):
            # the same model twice, such as one trained as ONNX and its measured export: the measured one counts
            if len(variant.document.get("metrics", {})) > len(known.document.get("metrics", {})):
                found[variant.target] = variant
        else:
            raise ConfigError(
                f"two models have the target {variant.target} and differ "
                f"({known.document['sha256'][:12]} and {variant.document['sha256'][:12]})",
                where="models",
                hint="a release has one variant a target: publish them under two names, or leave one out",
            )
    variants = list(found.values())
    check_same({variant.target: variant.document for variant in variants})
    return variants


def _model_files(variant: Variant) -> dict[str, str]:
    """Return the digests of a variant's files, without the document that says what was measured."""
    return {name: entry["sha256"] for name, entry in variant.files.items() if name != "model.json"}


def _read_variant(folder: Path) -> Variant:
    try:
        document = json.loads((folder / "model.json").read_bytes())
        files = describe_tree(folder)
        files.pop(STORE_MANIFEST, None)  # the artifact store's own, not the model's
        variant = Variant(folder, document, files)
        if not TARGET.fullmatch(variant.target) or document["file"] not in variant.files:
            raise ValueError(f"target {variant.target!r}, file {document['file']!r}")
        if variant.files[document["file"]]["sha256"] != document["sha256"]:
            raise ValueError(f"{document['file']} does not match its sha256")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedArtifact(f"not a model: {error}", where=str(folder)) from error
    return variant


def check_same(documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse variants that answer different questions.

    Args:
        documents: Their ``model.json`` (or a release's manifest) by name.

    Raises:
        ConfigError: two differ in problem, label, classes or columns.
    """
    (name, first), *others = documents.items()
    for other, document in others:
        for key, words in (("problem", "problem"), ("label", "label"), ("classes", "classes"), ("features", "columns")):
            if _comparable(first, key) != _comparable(document, key):
                raise ConfigError(
                    f"{name} and {other} are no variants of one model: they have other {words}",
                    where="models",
                    hint="publish them under two names",
                )


def _comparable(document: Mapping[str, Any], key: str) -> Any:
    if key == "features":
        return [(feature["name"], feature["type"]) for feature in document["features"]]
    return document.get(key) or []


def build_release(folder: Path, name: str, variants: Sequence[Variant], golden: Golden, facts: Facts) -> dict[str, Any]:
    """Fill an empty folder with a release, and return its manifest.

    Args:
        folder: Empty.
        name: Registered model.
        variants: What :func:`read_variants` returned.
        golden: The self-test; an ONNX variant without outputs there cannot become the default.
        facts: What else is known.
    """
    for variant in variants:
        target = folder / "variants" / variant.target
        for file in variant.files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(variant.folder / file, target / file)
    manifest = _manifest(name, variants, golden, facts)
    _write_mlmodels(folder, manifest, variants)
    write_document(folder / GOLDEN, {"inputs": golden.inputs, "outputs": golden.outputs, "source": golden.source})
    (folder / "README.md").write_text(model_card(manifest), encoding="utf-8")
    manifest["files"] = describe_tree(folder)
    write_document(folder / MANIFEST, manifest)
    return manifest


def _manifest(name: str, variants: Sequence[Variant], golden: Golden, facts: Facts) -> dict[str, Any]:
    first = variants[0].document
    loadable = [v.target for v in variants if v.document["format"] == "onnx" and golden.outputs.get(v.target)]
    manifest = {
        "format": FORMAT,
        "name": name,
        "description": facts.description,
        "problem": first["problem"],
        "label": first["label"],
        "classes": first.get("classes") or [],
        "features": first["features"],
        "variants": [entry_of(v, self_tested=bool(golden.outputs.get(v.target))) for v in variants],
        "default_variant": loadable[-1] if loadable else None,
        "evaluation": {"metrics": facts.metrics, "gates": facts.gates},
        "lineage": facts.lineage,
    }
    manifest["digest"] = content_digest(manifest)
    return manifest


def entry_of(variant: Variant, *, self_tested: bool) -> dict[str, Any]:
    """Return what a manifest says of a variant."""
    document = variant.document
    file = document["file"]
    return {
        "target": variant.target,
        "format": document["format"],
        "file": f"variants/{variant.target}/{file}",
        "sha256": document["sha256"],
        "size": variant.files[file]["size"],
        "files": {name: entry["sha256"] for name, entry in variant.files.items()},
        "metrics": document.get("metrics", {}),
        "libraries": document.get("libraries", {}),
        "verified": document.get("verified", {}),
        "self_tested": self_tested,
    }


def content_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a release from its manifest: name, signature and variants, nothing that a run decides.

    Variants that were added to the version later do not count.
    """
    variants = [variant for variant in manifest["variants"] if not variant.get("added")]
    return digest_json(
        {
            "name": manifest["name"],
            "problem": manifest["problem"],
            "label": manifest["label"],
            "classes": manifest["classes"],
            "features": [[feature["name"], feature["type"]] for feature in manifest["features"]],
            "variants": {variant["target"]: variant["files"] for variant in variants},
            "order": [variant["target"] for variant in variants],
        }
    )


def _write_mlmodels(folder: Path, manifest: Mapping[str, Any], variants: Sequence[Variant]) -> None:
    columns = signature(manifest["features"], manifest["problem"], len(manifest["classes"]))
    default = manifest["default_variant"]
    metadata = {
        "format": FORMAT,
        "digest": manifest["digest"],
        "name": manifest["name"],
        "default_variant": default,
        "columns": [feature["name"] for feature in manifest["features"]],
    }
    for variant in variants:
        document = variant.document
        libraries = document.get("libraries", {})
        python = str(libraries.get("python", "3.11"))
        facts = {"signature": columns, "libraries": libraries, "python": python}
        if document["format"] == "onnx":
            place = folder / "variants" / variant.target
            write_mlmodel(place, data=document["file"], metadata={**metadata, "target": variant.target}, **facts)
        if variant.target == default or (default is None and variant is variants[0]):
            data = f"variants/{variant.target}/{document['file']}" if default else None
            write_mlmodel(folder, data=data, metadata=metadata, **facts)


def write_document(path: Path, document: Any) -> None:
    """Write JSON whose bytes follow from what it says."""
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
