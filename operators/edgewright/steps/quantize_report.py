"""The page of a ``quantize`` task: the variants side by side."""

from __future__ import annotations

from typing import Any

from edgewright.artifacts import sha256_bytes
from edgewright.errors import GateResult
from edgewright.spec.steps.quantize import QuantizeConfig
from edgewright.steps import plots
from edgewright.steps.context import StepContext
from edgewright.steps.reports import Report, Table
from edgewright.steps.variants import Rows, Variant, logits
from edgewright.targets.timing import Latency


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
    table: list[tuple[Any, ...]] = [("size in bytes", *(variant.size for variant in shown.values()))]
    for batch in Latency.BATCHES:
        times = [variant.latency.get(batch) for variant in shown.values()]
        table.append((f"{_rows(batch)}, microseconds (median)", *(time and time.p50 for time in times)))
        table.append((f"{_rows(batch)}, microseconds (99 of 100)", *(time and time.p99 for time in times)))
    table += [(name, *(variant.quality.get(name) for variant in shown.values())) for name in names]
    report = Report(
        title=f"{identity.dag_id}: {config.target}",
        subtitle=f"{len(rows.y):,} rows of the part {rows.part}; times of one thread of this machine, warm",
        gates=gates,
    )
    report.tables.append(Table("Variants", ("", *shown), table, note=_how(variants[-1])))
    compared = sorted((name, value) for name, value in measured.items() if name not in names and name != "rows")
    report.tables.append(Table("Against the trained model", ("", "measured"), compared))
    report.charts = _charts(shown, variants)
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


def _rows(batch: int) -> str:
    return "one row" if batch == 1 else f"{batch} rows"


def _how(variant: Variant) -> str:
    """Say what ran the variant."""
    verified = variant.document.verified
    if variant.scores is None:
        return f"{variant.target} was not run: {verified['unverified']}"
    if "parts" in variant.document.details and variant.document.format != "onnx":
        return f"{variant.target}: {verified['runtime']}, times of the arithmetic alone; the rest ran in onnxruntime"
    return f"each was run as it ships, by {verified['runtime']}"


def _charts(shown: dict[str, Variant], variants: list[Variant]) -> dict[str, bytes]:
    charts: dict[str, bytes] = {}
    if not variants[-1].source:
        charts["size"] = plots.bars("Size", "bytes", {name: float(item.size) for name, item in shown.items()})
    for batch in Latency.BATCHES:
        times = {name: v.latency[batch].p50 for name, v in shown.items() if batch in v.latency}
        if len(times) == len(shown):
            charts[f"latency_{batch}"] = plots.bars(_rows(batch).capitalize(), "microseconds", times)
    before, after = variants[0].scores, variants[-1].scores
    if len(shown) > 1 and before is not None and after is not None:
        if variants[0].document.problem == "classification":
            before, after = logits(before), logits(after)
        charts["scores"] = plots.agreement("Scores of the rows", "float", variants[-1].target, before, after)
    return charts


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
        "sha256": sha256_bytes(variant.data),
        "size_bytes": variant.size,
        "latency": {str(batch): vars(times) for batch, times in variant.latency.items()},
        "threads": 1,
        "compile_seconds": variant.compile_seconds,
        "quality": variant.quality,
        "verified": variant.document.verified,
        "details": variant.document.details,
    }
