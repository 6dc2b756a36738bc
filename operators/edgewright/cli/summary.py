"""What a run came to, from its steps' result documents: as JSON, and as text for people.

Shared by ``run``, ``trigger`` and ``demo``. Nothing is computed here that a step did not measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from edgewright.cli.output import size

Document = dict[str, Any]


def summarize(results: Iterable[Mapping[str, Any]]) -> Document:
    """Return the summary of a run.

    Args:
        results: Result documents (``StepResult`` as JSON) in the order of the tasks.
    """
    summary: Document = {
        "dataset": None,
        "metrics": {},
        "gates": [],
        "variants": [],
        "release": None,
        "deployment": None,
        "notes": [],
        "reports": {},
        "cached": [],
    }
    for result in results:
        identity = result["identity"]
        index = identity.get("map_index", -1)
        task = identity["task_id"] if index < 0 else f"{identity['task_id']}[{index}]"
        _common(summary, task, result)
        special = _BY_STEP.get(result["step"])
        if special and result["state"] == "success":
            special(summary, result)
    return summary


def _common(summary: Document, task: str, result: Mapping[str, Any]) -> None:
    if result["metrics"]:
        summary["metrics"][task] = dict(result["metrics"])
    summary["gates"] += [{"task": task, **gate} for gate in result["gates"]]
    summary["notes"] += [{"task": task, "text": text} for text in result["notes"]]
    if result["cache"]["hit"]:
        summary["cached"].append({"task": task, "from": result["cache"]["reused_from"]["run_id"]})
    for name, ref in result["outputs"].items():
        if ref["kind"] == "report":
            summary["reports"][task if name == "report" else f"{task}.{name}"] = _page(ref)


def _page(ref: Mapping[str, Any]) -> str:
    page = ref["meta"].get("page")
    return f"{ref['uri']}/{page}" if page else str(ref["uri"])


def _dataset(summary: Document, result: Mapping[str, Any]) -> None:
    # the latest dataset of the run is what the model saw; quarantined rows are not part of it
    ref = result["outputs"].get("dataset")
    if ref:
        meta = ref["meta"]
        keys = ("rows", "parts", "label")
        summary["dataset"] = {"sha256": ref["sha256"], "uri": ref["uri"], **{k: meta.get(k) for k in keys}}


def _quantized(summary: Document, result: Mapping[str, Any]) -> None:
    metrics = result["metrics"]
    known = {variant["sha256"] for variant in summary["variants"]}
    for name in ("float", "model"):
        ref = result["outputs"].get(name)
        if ref is None or ref["sha256"] in known:
            continue
        known.add(ref["sha256"])
        own = "float_" if name == "float" else ""
        summary["variants"].append(
            {
                "target": ref["meta"].get("target", name),
                "bytes": metrics.get(f"{own}size_bytes", ref["size"]),
                "latency_us": metrics.get(f"{own}latency_us"),
                "sha256": ref["sha256"],
            }
        )


def _release(summary: Document, result: Mapping[str, Any]) -> None:
    ref = result["outputs"].get("release")
    meta = ref["meta"] if ref else {}
    found = {**meta, **result["tags"]}
    names = {"name": ("name", "model"), "version": ("version", "model_version"), "alias": ("alias",)}
    release = {key: next((found[n] for n in options if n in found), None) for key, options in names.items()}
    summary["release"] = {**release, "sha256": ref["sha256"] if ref else None}


def _deployment(summary: Document, result: Mapping[str, Any]) -> None:
    summary["deployment"] = dict(result["tags"])


_BY_STEP = {
    "ingest": _dataset,
    "validate": _dataset,
    "transform": _dataset,
    "quantize": _quantized,
    "publish": _release,
    "deploy": _deployment,
}


def summary_text(summary: Mapping[str, Any], headline: str = "") -> str:
    """Return a summary for people; parts that a run did not come to are left out."""
    parts = [headline] if headline else []
    for make in (_dataset_text, _metrics_text, _gates_text, _variants_text, _release_text, _notes_text, _reports_text):
        text = make(summary)
        if text:
            parts.append(text)
    return "\n".join(parts)


def _row(title: str, text: str) -> str:
    return f"  {click.style(f'{title:<10}', bold=True)} {text}"


def _block(title: str, lines: list[str]) -> str:
    return "\n".join(_row(title if number == 0 else "", line) for number, line in enumerate(lines))


def _dataset_text(summary: Mapping[str, Any]) -> str:
    dataset = summary["dataset"]
    if not dataset:
        return ""
    found = dataset["parts"] or {}
    parts = ", ".join(f"{name} {_rows(found[name])}" for name in ("train", "test", "holdout") if name in found)
    rows = f"{dataset['rows']:,} rows" if dataset["rows"] is not None else "rows not counted"
    split = f" ({parts})" if parts else ""
    return _row("dataset", f"{rows}{split}  sha256 {dataset['sha256'][:12]}")


def _rows(part: Any) -> Any:
    return part.get("rows") if isinstance(part, Mapping) else part


def _metrics_text(summary: Mapping[str, Any]) -> str:
    # what compares (drop, ratio, vs champion) is shown as a gate; here stand the plain figures of the model
    lines = []
    for task, metrics in summary["metrics"].items():
        shown = [f"{name} {_number(metrics[name])}" for name in _SHOWN if name in metrics]
        if shown:
            lines.append(f"{task}: {', '.join(shown)}")
    return _block("metrics", _few(lines))


def _few(lines: list[str]) -> list[str]:
    """Return the first lines of what many instances of a mapped task may say."""
    hidden = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"... and {hidden} more (--json has all)"] if hidden > 0 else lines


_MOST_LINES = 12
_SHOWN = (
    "accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier", "mae", "rmse", "r2",
)  # fmt: skip


def _gates_text(summary: Mapping[str, Any]) -> str:
    lines = []
    for gate in summary["gates"]:
        value = "not measured" if gate["value"] is None else _number(gate["value"])
        verdict = click.style("passed", fg="green") if gate["passed"] else click.style("FAILED", fg="red", bold=True)
        note = f" ({gate['note']})" if gate["note"] else ""
        lines.append(f"{verdict}  {gate['task']}: {gate['metric']} {value} {gate['operator']} {gate['limit']:g}{note}")
    return _block("gates", lines)


def _variants_text(summary: Mapping[str, Any]) -> str:
    lines = []
    for variant in summary["variants"]:
        latency = variant["latency_us"]
        time = f", {latency:,.1f} µs a row" if latency is not None else ""
        lines.append(f"{variant['target']:<12} {size(variant['bytes'])}{time}  sha256 {variant['sha256'][:12]}")
    return _block("model", lines)


def _release_text(summary: Mapping[str, Any]) -> str:
    lines = []
    release, deployment = summary["release"], summary["deployment"]
    if release:
        alias = f" as {release['alias']}" if release["alias"] else " without an alias"
        lines.append(_row("registry", f"{release['name']} version {release['version']}{alias}"))
    if deployment:
        model = f"version {deployment.get('model_version')}, variant {deployment.get('variant')}"
        service = f"{deployment.get('service')} at {deployment.get('url')}"
        lines.append(_row("deployed", f"{deployment.get('workload') or service}: {model}"))
    return "\n".join(lines)


def _notes_text(summary: Mapping[str, Any]) -> str:
    # what every instance of a mapped task says is said once
    notes = (f"{note['task'].partition('[')[0]}: {note['text']}" for note in summary["notes"])
    return _block("notes", _few(list(dict.fromkeys(notes))))


def _reports_text(summary: Mapping[str, Any]) -> str:
    return _block("reports", _few([f"{task}: {uri}" for task, uri in summary["reports"].items()]))


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and abs(value) >= 1000 else f"{value:.4g}"
