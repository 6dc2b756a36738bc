"""``quantize``: from a trained model to what its target runs, proven on held-out rows.

Model artifacts hold only what equal inputs always give (quality, size, counts). How fast a model was is measured anew
each time and stands in the result's metrics and in the report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, GateResult, UserFault
from edgewright.spec.gates import check_gates
from edgewright.spec.steps.quantize import GATE_METRICS, QuantizeConfig
from edgewright.steps import metrics
from edgewright.steps.compiling import make_variant, prepare_foreign
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import Dataset
from edgewright.steps.environment import version_of
from edgewright.steps.models import (
    QONNX,
    LoadedModel,
    ModelDocument,
    OnnxModel,
    PickledModel,
    describe_features,
    load_model,
    write_model,
)
from edgewright.steps.originals import with_columns
from edgewright.steps.quantize_report import report_page
from edgewright.steps.tracking import add_to_run
from edgewright.steps.variants import Rows, Variant, compare_variants, measure_onnx
from edgewright.targets import Target, find_target


def run(config: QuantizeConfig, context: StepContext) -> StepOutput:
    """Export, compile and measure.

    Raises:
        ConfigError: there is no such target, or a gate names what was not measured.
        UserFault: the model has no ONNX form, the export differs from it, or the target cannot help it.
    """
    target, source, dataset = _opened(config, context)
    rows, train = Rows(*metrics.held_out(dataset)), dataset.frame("train")
    exported = _export(source, train, config)
    exported.qonnx = _qonnx(config, context)
    difference = _check_export(source, exported, rows, config)
    measure_onnx(exported, rows)
    variant, notes = make_variant(target, exported, train, rows, config, context)
    measured = compare_variants(source, exported, variant, rows)
    measured["export_max_difference"] = difference
    gates = check_gates(config.gates, _gateable(measured, variant), _gate_notes(variant))
    output = _output(config, context, [exported, variant], measured, gates, rows)
    output.notes = [*notes, *output.notes, *_transform_notes(dataset)]
    return output


def prepare(config: QuantizeConfig, context: StepContext, folder: Path) -> None:
    """Export, and fill the folder in which a command in somebody else's image compiles; ``run`` collects after it.

    Raises:
        ConfigError: the target is none that such an image compiles.
        UserFault: as ``run``.
    """
    target, source, dataset = _opened(config, context)
    if not target.foreign:
        raise ConfigError(f"the target {target.name} is compiled by us, and somebody else's image has nothing of ours",
                          where="profile", hint="leave the profile out")  # fmt: skip
    rows, train = Rows(*metrics.held_out(dataset)), dataset.frame("train")
    exported = _export(source, train, config)
    _check_export(source, exported, rows, config)
    prepare_foreign(target, exported, train, rows, config, context, folder)


def _opened(config: QuantizeConfig, context: StepContext) -> tuple[Target, LoadedModel, Dataset]:
    target = find_target(config.target)
    _refuse_unheeded(config, target)
    source = load_model(context.fetch(config.model))
    dataset = Dataset.open(context.fetch(config.data))
    return target, source, with_columns(source.document.feature_names, dataset, context)


def _refuse_unheeded(config: QuantizeConfig, target: Target) -> None:
    """Refuse what was asked for and would change nothing."""
    unheeded = sorted({"method", "per_channel", "calibration"} & config.model_fields_set - set(target.options))
    if unheeded:
        raise ConfigError(
            f"the target {target.name} does not heed {', '.join(unheeded)}",
            where="quantize.with",
            hint=f"leave it out; it heeds {', '.join(target.options) or 'none of these'}",
        )


def _gateable(measured: dict[str, float], variant: Variant) -> dict[str, float | None]:
    """Return what gates may name; of a variant that was not run, quality and speed are unknown, which is no fault."""
    found: dict[str, float | None] = dict(measured)
    if variant.scores is None:
        found = {**dict.fromkeys(GATE_METRICS), **found}
    return found


def _gate_notes(variant: Variant) -> dict[str, str]:
    reason = variant.document.verified.get("unverified")
    return dict.fromkeys(GATE_METRICS, f"not run here: {reason}") if reason else {}


def _transform_notes(dataset: Dataset) -> list[str]:
    if not dataset.transforms:
        return []
    return ["the model takes the columns that the transform step made: whoever asks it must send those"]


# -- export ----------------------------------------------------------------------------------------------------------


def _export(source: LoadedModel, train: Any, config: QuantizeConfig) -> Variant:
    """Return the model as float ONNX in canonical bytes."""
    from edgewright.targets import graph

    document = source.document
    if isinstance(source, PickledModel):
        from edgewright.targets.export import export_sklearn

        model = export_sklearn(
            source.estimator,
            [(feature.name, feature.type) for feature in document.features],
            problem=document.problem,
            classes=len(document.classes),
        )
    elif isinstance(source, OnnxModel) and document.target == "onnx":
        model = graph.parse(source.data)
    else:
        raise UserFault(
            f"the model is compiled for {document.target} already", where="model", hint="take the trained model"
        )
    data = graph.canonical_bytes(model)
    libraries = {name: version_of(name) for name in ("onnx", "onnxruntime", "skl2onnx")}
    details = {**graph.describe(model), "source": config.model.sha256}
    if "estimator" in document.details:
        details["estimator"] = document.details["estimator"]
    exported = ModelDocument(
        format="onnx",
        target="onnx",
        file="model.onnx",
        problem=document.problem,
        label=document.label,
        classes=document.classes,
        features=describe_features(train, {f.name: f.type for f in document.features}, document.feature_names),
        libraries={**document.libraries, **libraries},
        details=details,
    )
    return Variant("onnx", data, exported)


def _qonnx(config: QuantizeConfig, context: StepContext) -> bytes | None:
    """Return the quantization-aware trained model with the bits of each number, where training left one."""
    path = context.fetch(config.model) / QONNX
    return path.read_bytes() if path.is_file() else None


def _check_export(source: LoadedModel, exported: Variant, rows: Rows, config: QuantizeConfig) -> float:
    """Return the largest difference between the source's and the export's scores.

    Raises:
        UserFault: it is above the tolerance.
    """
    before = source.scores(rows.frame)
    after = OnnxModel(exported.data, exported.document).scores(rows.frame)
    apart = np.abs(before - after)
    if exported.document.problem == "regression":
        # predictions have a unit; hold their differences against their size
        apart = apart / max(1.0, float(np.abs(before).max()))
    largest = float(apart.max())
    exported.document.details["export"] = {"tolerance": config.tolerance, "max_difference": round(largest, 9)}
    if not largest <= config.tolerance:
        row = int(apart.max(axis=1).argmax())
        raise UserFault(
            f"the exported model differs from the trained one: {largest:.3g} in row {row} of the part {rows.part} "
            f"({int((apart.max(axis=1) > config.tolerance).sum())} of {len(apart)} are above {config.tolerance:g})",
            where="tolerance",
            hint="ONNX computes in 32 bits: scale large numbers and round thresholds, or raise tolerance: if the "
            "difference does not matter",
        )
    return largest


# -- outputs ---------------------------------------------------------------------------------------------------------


def _output(
    config: QuantizeConfig,
    context: StepContext,
    variants: list[Variant],
    measured: dict[str, float],
    gates: list[GateResult],
    rows: Rows,
) -> StepOutput:
    exported, variant = variants
    outputs: dict[str, ArtifactRef] = {}
    for name, item in (("model", variant), ("float", exported)):
        folder = context.folder(name)
        for place, data in item.files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(data)
        write_model(folder, item.data, item.document)
        outputs[name] = context.put(folder, "model", _meta(item, config))
    folder = context.folder("report")
    report_page(config, context, variants, measured, gates, rows).write(folder)
    outputs["report"] = context.put(folder, "report", {"page": "report.html", "part": rows.part, "rows": len(rows.y)})
    notes: list[str] = []
    if variant.scores is None:
        reason = variant.document.verified["unverified"]
        notes.append(f"{config.target} was not run here ({reason}): its size was measured, its quality was not")
    run_id = config.model.meta.get("mlflow_run_id")
    if run_id and context.request.tracking_uri:
        named = {f"{config.target}/{name}": value for name, value in measured.items()}
        files = {folder / "report.html": f"variants/{config.target}"}
        note = add_to_run(context.request.tracking_uri, str(run_id), named, files)
        notes += [note] if note else []
    return StepOutput(outputs, measured, gates=gates, notes=notes)


def _meta(variant: Variant, config: QuantizeConfig) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "problem": variant.document.problem,
        "format": variant.document.format,
        "target": variant.target,
        "label": variant.document.label,
        "features": len(variant.document.features),
    }
    meta["verified"] = variant.scores is not None
    if config.model.meta.get("mlflow_run_id"):
        meta["mlflow_run_id"] = config.model.meta["mlflow_run_id"]
    return meta
