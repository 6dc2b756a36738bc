"""``fetch``: a registered version, its float model, the dataset that it was made from, and the targets it lacks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, DataError, NotFound
from edgewright.registry import Registry
from edgewright.registry.release import MANIFEST
from edgewright.registry.versions import RegisteredVersion
from edgewright.spec.steps.fetch import FetchConfig
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.streams.batches import BatchLog
from edgewright.targets import find_target

#: The variant that others are compiled from.
FLOAT = "onnx"


def run(config: FetchConfig, context: StepContext) -> StepOutput:
    """Fetch a version.

    Raises:
        ConfigError: nothing says which version, or a target that is asked for cannot be compiled for here.
        NotFound: there is no such version, or the dataset is not in this store.
        DataError: the version has no float model that may be loaded.
    """
    if not context.request.tracking_uri:
        raise ConfigError("there is no model registry here", where="fetch", hint="set EDGEWRIGHT_TRACKING_URI")
    registry = Registry(context.request.tracking_uri)
    version = _version(registry, config, context)
    release = registry.download(version, context.folder("download"))
    manifest = json.loads((release / MANIFEST).read_bytes())
    wanted, notes = _targets(config, version, manifest)
    outputs = {
        "model": _model(release, manifest, version, context),
        "dataset": _dataset(manifest, version, context),
        "release": context.put(release, "bundle", release_meta(version, manifest)),
    }
    for note in notes:
        context.note("%s", note)
    tags = {"model_name": version.name, "model_version": version.version, "targets": json.dumps(wanted)}
    return StepOutput(outputs, tags=tags, notes=notes)


def release_meta(version: RegisteredVersion, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what the reference to a release says."""
    return {
        "name": version.name,
        "version": version.version,
        "digest": manifest["digest"],
        "variants": [variant["target"] for variant in manifest["variants"]],
        "default_variant": manifest["default_variant"],
    }


# -- which version ---------------------------------------------------------------------------------------------------


def _version(registry: Registry, config: FetchConfig, context: StepContext) -> RegisteredVersion:
    named = config.registered or _of_event(context)
    name, slash, number = named.partition("/")
    name, _, alias = name.partition("@")
    found = registry.version(name, number) if slash else registry.champion(name, alias or "champion")
    if found is None:
        raise NotFound(f"the model {name} has no {alias or 'champion'}", hint=f"name a version: {name}/1")
    return found


def _of_event(context: StepContext) -> str:
    """Return the version whose event started the run."""
    claim = context.store.read_json(context.request.batch) if context.request.batch else None
    if claim is None:
        raise ConfigError(
            "nothing says which version", where="registered",
            hint="name one (bracelet/3), or let a registry trigger start the run",
        )  # fmt: skip
    log = BatchLog(context.store, str(claim["dag_id"]), str(claim["source"]))
    batches = [log.read(int(number)) for number in claim["numbers"]]
    events = [batch.details.get("event") for batch in batches if batch is not None]
    if len(events) != 1 or not isinstance(events[0], dict) or not {"model", "version"} <= set(events[0]):
        raise ConfigError(
            f"the run was started by {len(events)} batches, not by one registered version", where="registered",
            hint="name the version, or start the run by a registry trigger without cooldown",
        )  # fmt: skip
    return f"{events[0]['model']}/{events[0]['version']}"


# -- what it is to be made for ---------------------------------------------------------------------------------------


def _targets(config: FetchConfig, version: RegisteredVersion, manifest: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the targets that the version lacks, all of them known, and notes on the others."""
    asked = config.targets
    if asked is None:
        asked = [name for name in re.split(r"[,\s]+", version.tags.get(config.tag, "")) if name]
    where = f"{version.name} version {version.version}, tag {config.tag}" if config.targets is None else "targets"
    there = {variant["target"] for variant in manifest["variants"]}
    wanted, notes, faults = [], [], []
    for name in dict.fromkeys(asked):
        if name in there:
            notes.append(f"version {version.version} has a variant for {name} already")
            continue
        try:
            wanted.append(find_target(name).name)
        except ConfigError as error:
            faults.append(f"{error.message} ({error.hint})")
    if faults:
        raise ConfigError("; ".join(faults), where=where)
    if not asked:
        notes.append(f"version {version.version} has no tag {config.tag}: nothing is to be compiled")
    return wanted, notes


# -- what a compiler needs -------------------------------------------------------------------------------------------


def _model(release: Path, manifest: dict[str, Any], version: RegisteredVersion, context: StepContext) -> ArtifactRef:
    entry = next((variant for variant in manifest["variants"] if variant["target"] == FLOAT), None)
    if entry is None:
        names = ", ".join(variant["target"] for variant in manifest["variants"])
        raise DataError(
            f"{version.name} version {version.version} has no float ONNX variant to compile from; it has: {names}",
            hint="publish what a quantize task made: it brings the exported model along",
        )
    folder = context.folder("model")
    for name in entry["files"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(release / "variants" / FLOAT / name, folder / name)
    meta: dict[str, Any] = {
        "problem": manifest["problem"],
        "format": entry["format"],
        "target": FLOAT,
        "label": manifest["label"],
        "features": len(manifest["features"]),
    }
    if version.run_id:
        meta["mlflow_run_id"] = version.run_id
    return context.put(folder, "model", meta)


def _dataset(manifest: dict[str, Any], version: RegisteredVersion, context: StepContext) -> ArtifactRef:
    from edgewright.steps.data import reference_meta

    digest = manifest["lineage"].get("dataset_digest")
    found = context.store.find(digest, "dataset") if digest else None
    if found is None:
        said = f"(sha256 {digest[:12]}) is not in this artifact store" if digest else "is not named by its manifest"
        raise NotFound(
            f"the dataset of {version.name} version {version.version} {said}",
            where=context.store.root,
            hint="run this where the version was trained, before gc removes the dataset",
        )
    manifest_of_data = json.loads((context.fetch(found) / "dataset.json").read_bytes())
    return found.model_copy(update={"meta": reference_meta(manifest_of_data)})
