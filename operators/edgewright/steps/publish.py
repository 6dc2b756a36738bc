"""``publish``: register all variants of a model as one version, with its history, once; the alias moves last.

Where the facts come from: the results that the other tasks of the same run left in the artifact store. The task that
made a model says which dataset it was made from; the ``evaluate`` tasks that took one of the models say how good it is.
A model that comes from elsewhere (a reference given by hand) is published as well, with what its reference says.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.artifacts import ArtifactRef, digest_json
from edgewright.errors import ConfigError, DamagedArtifact
from edgewright.registry import Registry
from edgewright.registry.publish import Published, Publishing, note_data_time, publish
from edgewright.registry.release import MANIFEST, Facts, Variant, build_release, read_variants
from edgewright.spec.steps.publish import PublishConfig
from edgewright.steps.announce import announce
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.offers import check_offer, offer_bundles
from edgewright.steps.release_report import put_report
from edgewright.steps.run_record import RunRecord, TaskRecord, family

log = logging.getLogger("edgewright.steps")


@dataclass(frozen=True)
class _History:
    """What is known about the models.

    Attributes:
        facts: For the manifest.
        data: Dataset for the self-test, if one is known.
        mlflow_run_id: Training run, if known.
    """

    facts: Facts
    data: ArtifactRef | None
    mlflow_run_id: str


def run(config: PublishConfig, context: StepContext) -> StepOutput:
    """Publish a release.

    Raises:
        ConfigError: the models are no variants of one model, or there is no registry here.
        Unavailable: MLflow does not answer; trying again goes on where this try ended.
        DamagedArtifact: what the registry holds under this digest is damaged.
    """
    if config.bundle is not None:
        check_offer(config.bundle)
    if config.release is not None:
        from edgewright.steps.publish_added import add_to_version

        output = add_to_version(config, config.release, context)
    else:
        output = _publish(config, context)
    if config.bundle is not None:
        version = output.tags["model_version"]
        release = context.fetch(output.outputs["release"])
        for target, address in offer_bundles(config.bundle, context, release, version).items():
            output.tags[f"bundle.{target}"] = address
    if config.announce is not None:
        announce(config.announce, output, context)
    return output


def _publish(config: PublishConfig, context: StepContext) -> StepOutput:
    if not context.request.tracking_uri:
        raise ConfigError(
            "there is no model registry here", where="publish", hint="set EDGEWRIGHT_TRACKING_URI, or `edgewright up`"
        )
    registry = Registry(context.request.tracking_uri)
    known = _nothing_new(registry, config, context)
    if known is not None:
        return known
    variants = read_variants([context.fetch(ref) for ref in config.models])
    history = history_of(config, context)
    folder = context.folder("release")
    manifest, notes = _build(folder, config, context, variants, history)
    found = publish(registry, context.store, _publishing(config, context, folder, manifest, history))
    if not found.created:
        # what is registered counts: the folder of this run tells of another run's lineage
        folder = _registered(registry, found, context)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for note in found.notes:
        context.note("%s", note)
    output = _output(config, context, folder, manifest, found, history, [*notes, *found.notes])
    _remember(config, context, output)
    return output


def _record_key(config: PublishConfig, context: StepContext) -> str:
    asked = config.model_dump(mode="json", exclude={"models", "bundle", "release", "announce"}) | {
        "models": [ref.sha256 for ref in config.models]
    }
    return f"cache/publish/{digest_json({**asked, 'registry': context.request.tracking_uri})}.json"


def _remember(config: PublishConfig, context: StepContext, output: StepOutput) -> None:
    """Keep what came of publishing these models in this way, for the next run of an unchanged pipeline."""
    if "alias_not_moved" not in output.tags:
        outputs = {name: ref.model_dump(mode="json") for name, ref in output.outputs.items()}
        document = {"outputs": outputs, "tags": output.tags, "metrics": output.metrics}
        context.store.write_json(_record_key(config, context), document)


def _nothing_new(registry: Registry, config: PublishConfig, context: StepContext) -> StepOutput | None:
    """Return the outcome without building anything, if these models are what the alias points to already.

    The registry is asked in any case; only MLflow's client (three seconds to import) and the self-test are spared.
    """
    record = context.store.read_json(_record_key(config, context)) if config.alias else None
    if record is None or "outputs" not in record or config.alias is None or context.request.cache != "use":
        return None
    outputs = {name: ArtifactRef.model_validate(ref) for name, ref in record["outputs"].items()}
    tags = dict(record["tags"])
    holder = registry.champion(config.model_name, config.alias)
    same = holder is not None and (holder.version, holder.digest) == (tags["model_version"], tags["release_digest"])
    if holder is None or not same or not all(map(context.store.verify, outputs.values())):
        return None
    note_data_time(context.store, config.model_name, holder.version, context.request.data_time)
    notes = [
        f"the same models are registered as {config.model_name} version {holder.version} already; reused",
        f"version {holder.version} is the {config.alias} already",
    ]
    for note in notes:
        context.note("%s", note)
    return StepOutput(outputs, record["metrics"], tags | {"registration": "reused"}, notes=notes)


def _build(
    folder: Path, config: PublishConfig, context: StepContext, variants: list[Variant], history: _History
) -> tuple[dict[str, Any], list[str]]:
    # these import pandas and Arrow, which a release that is registered already does without
    from edgewright.steps.data import Dataset
    from edgewright.steps.golden import golden_rows, score_golden
    from edgewright.steps.originals import with_columns

    data, features = None, variants[0].document["features"]
    if history.data is not None:
        opened = Dataset.open(context.fetch(history.data))
        data = with_columns([feature["name"] for feature in features], opened, context)
    rows, source = golden_rows(data, features)
    # every folder here came out of this installation's own store, which compared the digests
    golden, notes = score_golden(variants, rows, source, {variant.target for variant in variants})
    if data is None:
        notes.append("no task of this run says which data the model was measured on: its self-test has made-up rows")
    manifest = build_release(folder, config.model_name, variants, golden, history.facts)
    if manifest["default_variant"] is None:
        notes.append("no variant can be loaded by the prediction service: add a quantize task (target onnx)")
    return manifest, notes


def _publishing(
    config: PublishConfig, context: StepContext, folder: Path, manifest: dict[str, Any], history: _History
) -> Publishing:
    identity = context.request.identity
    return Publishing(
        name=config.model_name,
        digest=manifest["digest"],
        folder=folder,
        alias=config.alias,
        experiment=identity.dag_id,
        run_id=history.mlflow_run_id,
        data_time=context.request.data_time,
        description=config.description or f"Published by {identity.dag_id}, run {identity.run_id}",
        tags=_tags(manifest),
        own_tags=config.tags,
        by=f"{identity.dag_id}/{identity.run_id}/{identity.task_id}",
    )


def _tags(manifest: dict[str, Any]) -> dict[str, str]:
    tags = {
        "targets": ",".join(variant["target"] for variant in manifest["variants"]),
        "default_variant": manifest["default_variant"] or "",
        "gates": _gate_summary(manifest["evaluation"]["gates"]),
    }
    unverified = [entry["target"] for entry in manifest["variants"] if entry["verified"].get("unverified")]
    if unverified:
        tags["unverified"] = ",".join(unverified)
    tags |= {name: str(value) for name, value in manifest["lineage"].items() if value not in (None, "")}
    tags |= {f"metric.{name}": f"{value:.6g}" for name, value in manifest["evaluation"]["metrics"].items()}
    return tags


def _gate_summary(gates: list[dict[str, Any]]) -> str:
    passed = sum(gate["passed"] for gate in gates)
    return f"{passed} of {len(gates)} passed" if gates else ""


def _registered(registry: Registry, found: Published, context: StepContext) -> Path:
    try:
        return registry.download(found.version, context.folder("registered"))
    except DamagedArtifact as error:
        raise DamagedArtifact(
            f"these models are registered as version {found.version.version}, and what is there is damaged: "
            f"{error.message}",
            where=found.version.uri,
            hint="delete that version in MLflow, then run this task again",
        ) from error


def _output(
    config: PublishConfig,
    context: StepContext,
    folder: Path,
    manifest: dict[str, Any],
    found: Published,
    history: _History,
    notes: list[str],
) -> StepOutput:
    version = found.version
    meta = {
        "name": config.model_name,
        "version": version.version,
        "digest": manifest["digest"],
        "variants": [variant["target"] for variant in manifest["variants"]],
        "default_variant": manifest["default_variant"],
    }
    tags = {
        "model_name": config.model_name,
        "model_version": version.version,
        "release_digest": manifest["digest"],
        "registration": "created" if found.created else "reused",
    }
    if config.alias:
        tags["alias" if config.alias in version.aliases else "alias_not_moved"] = config.alias
    if history.mlflow_run_id:
        tags["mlflow_run_id"] = history.mlflow_run_id
    metrics = {"variants": float(len(manifest["variants"]))}
    models = [ref.sha256 for ref in config.models]
    report, more = put_report(manifest, version.version, models, history.mlflow_run_id, context)
    outputs = {"release": context.put(folder, "bundle", meta), **report}
    return StepOutput(outputs, metrics, tags, notes=[*notes, *more])


# -- where the models come from ------------------------------------------------------------------------------------


def history_of(config: PublishConfig, context: StepContext) -> _History:
    """Return what the run's other tasks say of the models."""
    record = RunRecord(context.store, context.request.identity)
    models = [ref.sha256 for ref in config.models]
    makers = record.ancestors(models)
    judges = record.evaluations(family(record, models))
    training = next((task for task in makers if task.result.step == "train"), None)
    # what was used to measure counts first: evaluate, then quantize, then train (which names the same dataset)
    data = next((ref for task in [*judges, *makers] if (ref := task.input("data")) is not None), None)
    run_id = next((str(ref.meta["mlflow_run_id"]) for ref in config.models if ref.meta.get("mlflow_run_id")), "")
    if training is not None:
        run_id = training.result.tags.get("mlflow_run_id", "") or run_id
    facts = Facts(
        description=config.description,
        metrics=_metrics([*reversed(makers), *judges]),
        gates=[
            {"task": task.task, **gate.model_dump()}
            for task in sorted({t.task: t for t in [*makers, *judges]}.values(), key=lambda t: t.result.started)
            for gate in task.result.gates
        ],
        lineage=_lineage(context, training, data, run_id),
    )
    return _History(facts, data, run_id)


def _metrics(tasks: list[TaskRecord]) -> dict[str, float]:
    """Return what the tasks measured; of equal names the later task's (``evaluate`` comes last)."""
    found: dict[str, float] = {}
    for task in tasks:
        prefix = "" if task.result.step in ("evaluate", "train") else f"{task.task}."
        found |= {f"{prefix}{name}": value for name, value in task.result.metrics.items() if math.isfinite(value)}
    return dict(sorted(found.items()))


def _lineage(
    context: StepContext, training: TaskRecord | None, data: ArtifactRef | None, run_id: str
) -> dict[str, Any]:
    request = context.request
    source = request.source
    trained_on = training.input("data") if training is not None else data
    return {
        "dag_id": request.identity.dag_id,
        "run_id": request.identity.run_id,
        "task_id": request.identity.task_id,
        "data_time": request.data_time or "",
        "dataset_digest": trained_on.sha256 if trained_on else "",
        "dataset_rows": trained_on.meta.get("rows", "") if trained_on else "",
        "pipeline_digest": source.pipeline_digest if source else "",
        "git_commit": (source.commit or "") if source else "",
        "git_dirty": "" if source is None or source.dirty is None else str(source.dirty).lower(),
        "mlflow_run_id": run_id,
        "entry": _code(training.request.config) if training is not None else "",
    }


def _code(config: dict[str, Any]) -> str:
    """Return the function, notebook or script of a train task."""
    return str(next((config[key] for key in ("entry", "notebook", "script") if config.get(key)), ""))
