"""From the float ONNX model to its target's variant: cut where the target wants that, compiled, run, measured."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from edgewright.errors import ConfigError, SystemFault, UserFault
from edgewright.spec.steps.quantize import QuantizeConfig
from edgewright.spec.steps.target_options import FILES
from edgewright.steps.context import StepContext
from edgewright.steps.models import ModelDocument, feed
from edgewright.steps.variants import Rows, Variant, measure_onnx, note_scores, note_unverified, sqnr_db
from edgewright.targets import Compiled, Job, Target, compile_for

BEFORE = "before.onnx"
AFTER = "after.onnx"
CORE = "core.onnx"
_SECOND_ROWS = 32
#: Two runtimes may round a tie differently, by one step of 8 bits somewhere inside; more is another computation.
_AGREEING_DB = 30.0


def make_variant(
    target: Target, exported: Variant, train: pd.DataFrame, rows: Rows, config: QuantizeConfig, context: StepContext
) -> tuple[Variant, tuple[str, ...]]:
    """Compile for a target, and run what was made as it ships.

    Returns:
        The measured variant, and the compiler's notes.

    Raises:
        UserFault: the model cannot be compiled for this target.
    """
    job = _job(exported, train, config, context)
    if target.foreign:
        return _collect_foreign(target, job, exported, rows, context)
    if target.gpu:
        return _make_gpu(target, job, exported, rows)
    if target.core:
        return _make_core(target, job, exported, rows)
    if target.environment:
        return _make_whole(target, job, exported, rows)
    started = time.perf_counter()
    compiled = compile_for(target, job)
    variant = _variant(target, exported.document, compiled, time.perf_counter() - started)
    if target.runtime == "onnxruntime" and not compiled.unverified:
        measure_onnx(variant, rows)
        _add_to_verified(variant, compiled)
    else:
        note_unverified(variant, compiled.unverified or "nothing here can run it")
    return variant, compiled.notes


def _job(exported: Variant, train: pd.DataFrame, config: QuantizeConfig, context: StepContext) -> Job:
    calibration = feed(_calibration(train, config), exported.document)
    options = {
        "method": config.method,
        "per_channel": config.per_channel,
        "calibration_method": config.calibration.method,
        **_with_files(config.options, context),
    }
    return Job(exported.data, calibration, options, context.folder("compile"))


def _calibration(train: pd.DataFrame, config: QuantizeConfig) -> pd.DataFrame:
    """Return calibration rows, evenly spread over the part, whose order may follow time or class."""
    count = min(config.calibration.rows, len(train))
    return train.iloc[np.linspace(0, len(train) - 1, count).round().astype(int)]


def _with_files(options: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
    """Return options where a file of the pipeline's folder is its full path."""
    files = {name: str(context.path(options[name])) for name in FILES if isinstance(options.get(name), str)}
    return {**options, **files}


def _variant(target: Target, exported: ModelDocument, compiled: Compiled, seconds: float) -> Variant:
    document = exported.model_copy(
        update={
            "target": target.name,
            "format": target.format,
            "file": f"model{target.suffix}",
            "details": {**_told(target, exported), **compiled.details},
            "libraries": {**exported.libraries, **compiled.tools},
        }
    )
    return Variant(
        target.name, compiled.data, document, files=compiled.files, compile_seconds=seconds, source=target.source
    )


def _told(target: Target, exported: ModelDocument) -> dict[str, Any]:
    """Return what the float model's details say of every variant; its nodes are not those of a compiled one."""
    return {k: v for k, v in exported.details.items() if not target.environment or k not in ("nodes", "opsets")}


def _add_to_verified(variant: Variant, compiled: Compiled) -> None:
    variant.document.details.pop("checks", None)
    if "checks" in compiled.details:
        variant.document.verified["checks"] = compiled.details["checks"]


# -- targets that compile the arithmetic in an environment of their own --------------------------------------------


def _make_core(target: Target, job: Job, exported: Variant, rows: Rows) -> tuple[Variant, tuple[str, ...]]:
    from edgewright.targets.isolated import compile_isolated

    parts, core, middle = _cut(job, exported, rows, exported.qonnx if target.qonnx else None)
    in_child = target.runtime is not None and target.runtime != "onnxruntime"
    compiled, proof, seconds = compile_isolated(target, core, middle if in_child else None, timed=not target.source)
    if target.format == "onnx":
        _ask_second_runtime(compiled, middle)
        return _finish_onnx(target, exported, compiled, seconds, parts, rows)
    return _finish(target, exported, compiled, proof, seconds, parts, rows)


def _cut(job: Job, exported: Variant, rows: Rows, qonnx: bytes | None = None) -> tuple[Any, Job, dict[str, Any]]:
    """Return the model's parts, the job of its arithmetic, and the held-out rows as that takes them."""
    from edgewright.targets import graph
    from edgewright.targets.partition import split, split_behind

    inputs = feed(rows.frame, exported.document)
    model, probe = graph.parse(job.model), {name: array[:2] for name, array in inputs.items()}
    parts = split(model, probe) if qonnx is None else split_behind(model, qonnx, "scores", probe)
    middle = {parts.source: _run(parts.before, inputs, parts.source)}
    calibration = {parts.source: _run(parts.before, job.calibration, parts.source)}
    _check_finite(calibration[parts.source])
    return parts, Job(parts.core, calibration, job.options, job.scratch), middle


def _make_gpu(target: Target, job: Job, exported: Variant, rows: Rows) -> tuple[Variant, tuple[str, ...]]:
    """Make the portable INT8 model; have the GPU of this machine, where there is one, compile it."""
    from edgewright.steps import compiling_gpu
    from edgewright.targets import graph
    from edgewright.targets.isolated import compile_isolated
    from edgewright.targets.partition import join

    parts, core, middle = _cut(job, exported, rows)
    portable = compiling_gpu.portable_core(core)
    whole = join(parts, graph.parse(portable.data))
    details = {name: portable.details[name] for name in ("integer_nodes", "calibration_rows", "nodes", "opsets")}
    files = {compiling_gpu.PORTABLE: portable.data}
    plain = _variant(target, exported.document, Compiled(whole, details=details, files=files), 0.0)
    plain.document = plain.document.model_copy(update={"file": "model.onnx"})
    checks: dict[str, Any] = {"portable": compiling_gpu.measure_portable(plain, exported, rows)}
    if reason := compiling_gpu.missing_gpu(target):
        note_unverified(plain, reason)
        plain.document.verified["checks"] = checks
        return plain, (f"{target.name}: {reason} by onnxruntime",)
    compiled, proof, seconds = compile_isolated(target, replace(core, model=portable.data), middle)
    assert proof is not None
    answered = _run(portable.data, middle, parts.result)
    checks["engine_and_portable"] = compiling_gpu.agreed(np.asarray(proof.scores).reshape(answered.shape), answered)
    built = replace(
        compiled,
        details={**details, **compiled.details, "checks": checks},
        files={**compiled.files, **files, "model.onnx": whole},
    )
    return _finish(target, exported, built, proof, seconds, parts, rows)


# -- targets that somebody else's image compiles -------------------------------------------------------------------


def prepare_foreign(
    target: Target,
    exported: Variant,
    train: pd.DataFrame,
    rows: Rows,
    config: QuantizeConfig,
    context: StepContext,
    folder: Path,
) -> None:
    """Fill the folder that the command in somebody else's image works in.

    Raises:
        UserFault: the model cannot be compiled for this target.
    """
    parts, core, middle = _cut(_job(exported, train, config, context), exported, rows)
    expected = _run(core.model, middle, parts.result)
    importlib.import_module(target.module).prepare(core, middle, expected, folder)


def _collect_foreign(
    target: Target, job: Job, exported: Variant, rows: Rows, context: StepContext
) -> tuple[Variant, tuple[str, ...]]:
    """Take what somebody else's image has compiled."""
    from edgewright.steps.foreign import CODE

    if context.request.shared is None:
        raise ConfigError(
            f"the target {target.name} is compiled in its maker's image, and this task runs in ours",
            where="profile",
            hint="profile: one with foreign: true and that image (docs/targets.md)",
        )
    folder = Path(context.request.shared)
    parts, core, _ = _cut(job, exported, rows)
    compiled: Compiled = importlib.import_module(target.module).collect(core, int((folder / CODE).read_text()), folder)
    return _finish(target, exported, compiled, None, 0.0, parts, rows)


def _make_whole(target: Target, job: Job, exported: Variant, rows: Rows) -> tuple[Variant, tuple[str, ...]]:
    """Compile a whole model in the target's environment; what it answers are scores."""
    from edgewright.targets.isolated import compile_isolated

    inputs = feed(rows.frame, exported.document) if target.runtime else None
    compiled, proof, seconds = compile_isolated(target, job, inputs, timed=not target.source)
    variant = _variant(target, exported.document, compiled, seconds)
    if proof is None:
        note_unverified(variant, compiled.unverified or "nothing here can run it")
    else:
        note_scores(variant, np.asarray(proof.scores, dtype=np.float64), rows, str(target.runtime))
        variant.latency = proof.latency
    _add_to_verified(variant, compiled)
    return variant, compiled.notes


def _finish_onnx(
    target: Target, exported: Variant, compiled: Compiled, seconds: float, parts: Any, rows: Rows
) -> tuple[Variant, tuple[str, ...]]:
    """Put a compiled arithmetic that is ONNX back between the other parts: one file that runs anywhere."""
    from edgewright.targets import graph
    from edgewright.targets.partition import join

    data = join(parts, graph.parse(compiled.data))
    whole = replace(
        compiled,
        data=data,
        files={**compiled.files, CORE: compiled.data},
        details={**compiled.details, **graph.describe(graph.parse(data))},
    )
    variant = _variant(target, exported.document, whole, seconds)
    measure_onnx(variant, rows)
    _add_to_verified(variant, compiled)
    return variant, compiled.notes


def _ask_second_runtime(compiled: Compiled, middle: Mapping[str, Any]) -> None:
    """Run some rows by ONNX's reference implementation, which shares no code with onnxruntime; note the difference.

    Raises:
        SystemFault: they do not agree, so at least one of them does not do what the file says.
    """
    from onnx.reference import ReferenceEvaluator
    from onnx.version_converter import convert_version

    from edgewright.targets import graph

    rows = {name: np.asarray(array[:_SECOND_ROWS], dtype=np.float32) for name, array in middle.items()}
    # its DequantizeLinear starts at opset 19
    evaluator = ReferenceEvaluator(convert_version(graph.parse(compiled.data), 21))
    (second,) = evaluator.run(None, rows)
    first = _run(compiled.data, rows, evaluator.output_names[0])
    decibels = sqnr_db(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    if decibels < _AGREEING_DB:
        raise SystemFault(
            f"onnxruntime and ONNX's reference implementation do not agree on the compiled model: {decibels:.1f} dB"
        )
    compiled.details.setdefault("checks", {})["second_runtime"] = {
        "runtime": "onnx.reference",
        "rows": len(second),
        "max_difference": round(float(np.abs(first - second).max()), 6),
    }


def _finish(
    target: Target, exported: Variant, compiled: Compiled, proof: Any, seconds: float, parts: Any, rows: Rows
) -> tuple[Variant, tuple[str, ...]]:
    beside = {AFTER: parts.after} | ({BEFORE: parts.before} if parts.before else {})
    variant = _variant(target, exported.document, compiled, seconds)
    variant.files = {**compiled.files, **beside}
    variant.document.details["parts"] = {"input": parts.source, "output": parts.result, "shape": list(parts.shape)}
    if proof is None:
        note_unverified(variant, compiled.unverified or "nothing here can run it")
        _add_to_verified(variant, compiled)
        return variant, compiled.notes
    result = np.ascontiguousarray(np.asarray(proof.scores, dtype=np.float32))
    output = "probabilities" if variant.document.problem == "classification" else "prediction"
    scores = np.asarray(_run(parts.after, {parts.result: result}, output), dtype=np.float64)
    note_scores(variant, scores, rows, str(target.runtime))
    variant.latency = proof.latency
    _add_to_verified(variant, compiled)
    return variant, compiled.notes


def _run(model: bytes | None, arrays: Mapping[str, Any], output: str) -> Any:
    """Return one output of a part of the model; of no part at all, its input."""
    import onnxruntime

    if model is None:
        return arrays[output]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    (found,) = session.run([output], {name: array for name, array in arrays.items() if name in wanted})
    return found


def _check_finite(array: Any) -> None:
    if not np.isfinite(array).all():
        raise UserFault(
            "missing values in the calibration rows reach the arithmetic",
            hint="put an imputer (SimpleImputer) at the front of the model",
        )
