"""``publish`` with ``release:``: variants that were compiled later become part of the version that is registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgewright.artifacts import ArtifactRef
from edgewright.artifacts.locks import Lease
from edgewright.errors import ConfigError
from edgewright.registry import Registry
from edgewright.registry.additions import Addition, add_variants
from edgewright.registry.release import GOLDEN, MANIFEST, Variant, check_same, read_variants
from edgewright.registry.versions import RegisteredVersion
from edgewright.spec.steps.publish import PublishConfig
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.release_report import put_report

_LEASE = 120.0


def add_to_version(config: PublishConfig, release: ArtifactRef, context: StepContext) -> StepOutput:
    """Add models to a registered version as further variants of it.

    Raises:
        ConfigError: they are no variants of that model, or it has other variants for their targets.
        NotFound: the version is not registered any more.
        Unavailable: MLflow does not answer; trying again goes on.
    """
    from edgewright.steps.publish import history_of

    if not context.request.tracking_uri:
        raise ConfigError("there is no model registry here", where="publish", hint="set EDGEWRIGHT_TRACKING_URI")
    registry = Registry(context.request.tracking_uri)
    version = _version(registry, release)
    folder = registry.download(version, context.folder("registered"))
    manifest = _manifest(folder)
    variants = read_variants([context.fetch(ref) for ref in config.models])
    check_same({f"{version.name} version {version.version}": manifest} | {v.target: v.document for v in variants})
    new, notes = _new(variants, manifest, version)
    if new:
        additions, more = _scored(new, folder)
        history = history_of(config, context)
        version = add_variants(registry, context.store, version, additions, history.facts, context.folder("added"))
        names = ", ".join(addition.variant.target for addition in additions)
        notes += [*more, f"{version.name} version {version.version} has a variant for {names} now"]
    for note in notes:
        context.note("%s", note)
    # whoever adds at the same time draws the same page: one after the other, and each with what is there by then
    with Lease(context.store, f"releases/{version.name}/{version.version}", seconds=_LEASE).hold(timeout=2 * _LEASE):
        version = registry.version(version.name, version.version)
        folder = registry.download(version, context.folder("whole"))
        manifest = _manifest(folder)
        models = [ref.sha256 for ref in config.models]
        report, more = put_report(manifest, version.version, models, version.run_id, context)
    output = _output(version, manifest, folder, context, [*notes, *more], added=len(new))
    output.outputs |= report
    return output


def _version(registry: Registry, release: ArtifactRef) -> RegisteredVersion:
    name, number, digest = (str(release.meta.get(key) or "") for key in ("name", "version", "digest"))
    if not name or not number:
        raise ConfigError("this release is not registered", where="release", hint="take a fetch or a publish task's")
    version = registry.version(name, number)
    if version.digest != digest:
        raise ConfigError(
            f"{name} version {number} in this registry is another release", where="release",
            hint="both tasks must use the same registry",
        )  # fmt: skip
    return version


def _manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return found


def _new(
    variants: list[Variant], manifest: dict[str, Any], version: RegisteredVersion
) -> tuple[list[Variant], list[str]]:
    """Return the variants that the version lacks; what it has must be the same.

    Raises:
        ConfigError: it has another one for the same target.
    """
    there = {entry["target"]: entry["sha256"] for entry in manifest["variants"]}
    new, notes = [], []
    for variant in variants:
        known = there.get(variant.target)
        if known is None:
            new.append(variant)
        elif known == variant.document["sha256"]:
            notes.append(f"version {version.version} has the same variant for {variant.target} already")
        else:
            raise ConfigError(
                f"{version.name} version {version.version} has another variant for {variant.target} "
                f"({known[:12]}, this one is {variant.document['sha256'][:12]})",
                where="models",
                hint="what is registered does not change: publish a new version",
            )
    return new, notes


def _scored(variants: list[Variant], folder: Path) -> tuple[list[Addition], list[str]]:
    """Return the additions with their scores of the release's golden rows, and notes on those that do not run here."""
    from edgewright.steps.golden import score_golden

    golden = json.loads((folder / GOLDEN).read_bytes())
    own = {variant.target for variant in variants}
    scored, notes = score_golden(variants, golden["inputs"], golden["source"], own)
    return [Addition(variant, scored.outputs.get(variant.target)) for variant in variants], notes


def _output(
    version: RegisteredVersion,
    manifest: dict[str, Any],
    folder: Path,
    context: StepContext,
    notes: list[str],
    *,
    added: int,
) -> StepOutput:
    from edgewright.steps.fetch import release_meta

    tags = {
        "model_name": version.name,
        "model_version": version.version,
        "release_digest": manifest["digest"],
        "registration": "added" if added else "reused",
    }
    if version.aliases:
        tags["alias"] = ", ".join(version.aliases)
    release = context.put(folder, "bundle", release_meta(version, manifest))
    return StepOutput({"release": release}, {"variants": float(len(manifest["variants"]))}, tags, notes=notes)
