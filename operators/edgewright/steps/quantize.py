"""``quantize``: from a trained model to what its target runs, proven on held-out rows.

Model artifacts hold only what equal inputs always give (quality, size, counts). How fast a model was is measured anew
each time and stands in the result's metrics and in the report.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from edgewright.artifacts import ArtifactRef
from edgewright.errors import GateResult, UserFault
from edgewright.spec.gates import check_gates
from edgewright.spec.steps.quantize import QuantizeConfig
from edgewright.steps import metrics, plots
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import Dataset
from edgewright.steps.environment import version_of
from edgewright.steps.models import (
    LoadedModel,
    ModelDocument,
    OnnxModel,
    PickledModel,
    describe_features,
    feed,
    load_model,
    write_model,
)
from edgewright.steps.originals import with_columns
from edgewright.steps.reports import Report, Table
from edgewright.steps.tracking import add_to_run
from edgewright.targets import Compiled, Job, Target, compile_for, find_target

_WARM_UP = 50
_RUNS = 500
_SECONDS = 1.0
_TIE = 1e-6


@dataclass
class Variant:
    """One form of the model, measured.

    Attributes:
        target: What it was made for.
        data: The file's bytes.
        document: Its ``model.json``.
        quality: Metrics on the held-out rows; empty where it cannot run here.
        scores: Its scores of these rows, or ``None``.
        latency_us: Median time of one row in microseconds, or ``None``.
    """

    target: str
    data: bytes
    document: ModelDocument
    quality: dict[str, float]
    scores: np.ndarray[Any, Any] | None = None
    latency_us: float | None = None


@dataclass(frozen=True)
class Rows:
    """The held-out rows on which everything is proven."""

    part: str
    frame: pd.DataFrame
    y: pd.Series[Any]


def run(config: QuantizeConfig, context: StepContext) -> StepOutput:
    """Export, compile and measure.

    Raises:
        ConfigError: there is no such target, or a gate names what was not measured.
        UserFault: the model has no ONNX form, the export differs from it, or the target cannot help it.
    """
    target = find_target(config.target)
    source = load_model(context.fetch(config.model))
    dataset = with_columns(source.document.feature_names, Dataset.open(context.fetch(config.data)), context)
    rows = Rows(*metrics.held_out(dataset))
    train = dataset.frame("train")
    exported = _export(source, train, config)
    difference = _check_export(source, exported, rows, config)
    compiled = compile_for(target, _job(exported, train, config, context))
    float_variant = _measured(exported.data, exported.document, rows, config)
    variant = _measured(compiled.data, _compiled_document(exported.document, compiled, target), rows, config)
    measured = compare_variants(source, float_variant, variant, rows)
    measured["export_max_difference"] = difference
    gates = check_gates(config.gates, dict(measured), {})
    output = _output(config, context, [float_variant, variant], measured, gates, compiled, rows)
    output.notes += _transform_notes(dataset)
    return output


def _transform_notes(dataset: Dataset) -> list[str]:
    if not dataset.transforms:
        return []
    return ["the model takes the columns that the transform step made: whoever asks it must send those"]


# -- export ----------------------------------------------------------------------------------------------------------


def _export(source: LoadedModel, train: pd.DataFrame, config: QuantizeConfig) -> Variant:
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
    return Variant("onnx", data, exported, {})


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


# -- compiling -------------------------------------------------------------------------------------------------------


def _job(exported: Variant, train: pd.DataFrame, config: QuantizeConfig, context: StepContext) -> Job:
    count = min(config.calibration.rows, len(train))
    # evenly spread over the part, whose order may follow time or class
    places = np.linspace(0, len(train) - 1, count).round().astype(int)
    return Job(
        model=exported.data,
        calibration=feed(train.iloc[places], exported.document),
        options={
            "method": config.method,
            "per_channel": config.per_channel,
            "calibration_method": config.calibration.method,
        },
        scratch=context.folder("compile"),
    )


def _compiled_document(exported: ModelDocument, compiled: Compiled, target: Target) -> ModelDocument:
    details = {**exported.details, **compiled.details}
    return exported.model_copy(
        update={
            "target": target.name,
            "format": target.format,
            "file": f"model{target.suffix}",
            "details": details,
            "verified": {"runtime": target.runtime} if target.runtime else {"runtime": None},
        }
    )


# -- measuring -------------------------------------------------------------------------------------------------------


def _measured(data: bytes, document: ModelDocument, rows: Rows, config: QuantizeConfig) -> Variant:
    """Run a variant as it ships on the held-out rows."""
    variant = Variant(document.target, data, document, {})
    metrics_kept: dict[str, float] = {"size_bytes": float(len(data))}
    if document.verified.get("runtime", "onnxruntime") == "onnxruntime":
        model = OnnxModel(data, document)
        truth = metrics.compare(model, rows.frame, rows.y)
        variant.scores = truth.scores
        variant.quality = metrics.measure(truth)
        variant.latency_us = latency(model, rows.frame)
        metrics_kept |= variant.quality
        verified: dict[str, Any] = {"runtime": "onnxruntime", "part": rows.part, "rows": len(rows.y)}
    else:
        verified = {"runtime": None, "note": "this machine cannot run it; nothing was measured"}
    variant.document = document.model_copy(
        update={"metrics": {name: round(value, 9) for name, value in metrics_kept.items()}, "verified": verified}
    )
    return variant


def latency(model: OnnxModel, frame: pd.DataFrame) -> float:
    """Return the median time of one row in microseconds: one thread, warm, arrays ready, at most a second."""
    rows = [feed(frame.iloc[[index]], model.document) for index in range(min(32, len(frame)))]
    for index in range(_WARM_UP):
        model.run(rows[index % len(rows)])
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _RUNS and time.perf_counter() < end:
        row = rows[len(times) % len(rows)]
        start = time.perf_counter()
        model.run(row)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def compare_variants(source: LoadedModel, exported: Variant, variant: Variant, rows: Rows) -> dict[str, float]:
    """Return what gates may name: the variant against the trained model, by quality, size and speed.

    ``*_drop`` is the trained model's figure minus the variant's; ``rmse_ratio``, ``size_ratio`` and ``latency_ratio``
    are the variant's figure by that of the trained model (quality) or of the float ONNX model (size, speed).
    """
    truth = metrics.compare(source, rows.frame, rows.y)
    base = metrics.measure(truth)
    found = {
        "rows": float(len(rows.y)),
        "size_bytes": float(len(variant.data)),
        "float_size_bytes": float(len(exported.data)),
        "size_ratio": len(variant.data) / len(exported.data),
    }
    if variant.scores is None:
        return found
    found |= variant.quality
    for name in ("accuracy", "roc_auc", "r2"):
        if name in base and name in variant.quality:
            found[f"{name}_drop"] = base[name] - variant.quality[name]
    if "rmse" in base:
        # an exact model's error is 64-bit noise; no 32-bit variant can be held against that
        smallest = float(np.finfo(np.float32).eps) * max(1.0, float(np.abs(truth.y).max()))
        found["rmse_ratio"] = max(variant.quality["rmse"], smallest) / max(base["rmse"], smallest)
    if truth.problem == "classification":
        found["agreement"] = _agreement(truth.scores, variant.scores)
    found["max_difference"] = float(np.abs(truth.scores - variant.scores).max())
    if variant.latency_us and exported.latency_us:
        found["latency_us"] = variant.latency_us
        found["float_latency_us"] = exported.latency_us
        found["latency_ratio"] = variant.latency_us / exported.latency_us
    return found


def _agreement(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> float:
    """Return the share of rows whose decision is one that the trained model finds best (a tie has two of them)."""
    chosen = np.take_along_axis(before, after.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float(np.mean(chosen >= before.max(axis=1) - _TIE))


# -- outputs ---------------------------------------------------------------------------------------------------------


def _output(
    config: QuantizeConfig,
    context: StepContext,
    variants: list[Variant],
    measured: dict[str, float],
    gates: list[GateResult],
    compiled: Compiled,
    rows: Rows,
) -> StepOutput:
    exported, variant = variants
    outputs: dict[str, ArtifactRef] = {}
    for name, item in (("model", variant), ("float", exported)):
        folder = context.folder(name)
        write_model(folder, item.data, item.document)
        outputs[name] = context.put(folder, "model", _meta(item, config))
    folder = context.folder("report")
    report_page(config, context, variants, measured, gates, rows).write(folder)
    outputs["report"] = context.put(folder, "report", {"page": "report.html", "part": rows.part, "rows": len(rows.y)})
    notes = list(compiled.notes)
    if variant.scores is None:
        notes.append(f"{config.target} cannot run on this machine: its size was measured, its quality was not")
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
    if config.model.meta.get("mlflow_run_id"):
        meta["mlflow_run_id"] = config.model.meta["mlflow_run_id"]
    return meta


def report_page(
    config: QuantizeConfig,
    context: StepContext,
    variants: list[Variant],
    measured: dict[str, float],
    gates: list[GateResult],
    rows: Rows,
) -> Report:
    """Return the page that holds the variants side by side."""
    identity = context.request.identity
    # one variant when the target is the float model itself
    shown = {variant.target: variant for variant in variants}
    names = list(dict.fromkeys(name for variant in shown.values() for name in variant.quality))
    table: list[tuple[Any, ...]] = [("size in bytes", *(len(variant.data) for variant in shown.values()))]
    table.append(("one row in microseconds (median)", *(variant.latency_us for variant in shown.values())))
    table += [(name, *(variant.quality.get(name) for variant in shown.values())) for name in names]
    report = Report(
        title=f"{identity.dag_id}: {config.target}",
        subtitle=f"{len(rows.y):,} rows of the part {rows.part}; one thread of this machine, batch of one row",
        gates=gates,
    )
    report.tables.append(Table("Variants", ("", *shown), table, note="each was run as it ships"))
    compared = sorted((name, value) for name, value in measured.items() if name not in names and name != "rows")
    report.tables.append(Table("Against the trained model", ("", "measured"), compared))
    report.charts = _bars(shown)
    report.facts = _facts(config, context, variants[-1])
    report.data = {
        "version": 1,
        "target": config.target,
        "part": rows.part,
        "metrics": measured,
        "gates": [vars(gate) for gate in gates],
        "variants": {name: _described(variant) for name, variant in shown.items()},
    }
    return report


def _bars(shown: dict[str, Variant]) -> dict[str, bytes]:
    return {
        "size": plots.bars("Size", "bytes", {name: float(len(v.data)) for name, v in shown.items()}),
        "latency": plots.bars("One row", "microseconds", {name: v.latency_us or 0.0 for name, v in shown.items()}),
    }


def _facts(config: QuantizeConfig, context: StepContext, variant: Variant) -> dict[str, Any]:
    identity = context.request.identity
    nodes = variant.document.details.get("nodes", {})
    return {
        "run": f"{identity.run_id}, task {identity.task_id}",
        "trained model": f"sha256 {config.model.sha256}",
        "dataset": f"sha256 {config.data.sha256}",
        "nodes": ", ".join(f"{kind} {count}" for kind, count in nodes.items()),
    }


def _described(variant: Variant) -> dict[str, Any]:
    return {
        "size_bytes": len(variant.data),
        "latency_us": variant.latency_us,
        "quality": variant.quality,
        "details": variant.document.details,
    }
