"""The page of a release: all its compiled variants side by side, as the ``quantize`` tasks measured them.

What was measured stands in the reports of those tasks, in the artifact store: those of this run, and of the runs that
the release's lineage names (a variant may have been added by another run). Of a run that is gone only what the
manifest holds is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewright.artifacts import ArtifactRef
from edgewright.errors import DamagedArtifact, GateResult, StoreError
from edgewright.steps.context import StepContext
from edgewright.steps.contract import Identity
from edgewright.steps.reports import Report, Table
from edgewright.steps.run_record import RunRecord, TaskRecord
from edgewright.steps.tracking import add_to_run

#: Place of the page's files in the MLflow run that trained the model.
PLACE = "variants"
#: The float model that every quantize task measures beside its own variant.
_FLOAT = "onnx"
_BATCHES = {"1": "one row", "256": "256 rows"}
_AGAINST = {
    "agreement": "agreement with the trained model",
    "sqnr_db": "SQNR in decibels",
    "max_logit_difference": "largest logit difference",
    "max_difference": "largest difference of scores",
}
_SPEED = {"latency_ratio": "one row, times fp32", "latency_256_ratio": "256 rows, times fp32"}
_QUALITY = ("accuracy", "r2", "rmse")


@dataclass(frozen=True)
class Column:
    """One variant on the page.

    Attributes:
        target: What it was made for.
        quality: Its metrics on the held-out rows; empty where it was not run.
        verified: What ran it, on which rows, or why nothing did.
        size: Bytes of all files.
        latency: Times in microseconds by rows a call, ``p50`` and ``p99``.
        threads: Of these times.
        against: What was measured against the trained model and the float model.
        gates: Verdicts of its task.
    """

    target: str
    quality: Mapping[str, float]
    verified: Mapping[str, Any]
    size: float | None
    latency: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    threads: int | None = None
    against: Mapping[str, float] = field(default_factory=dict)
    gates: tuple[GateResult, ...] = ()

    @property
    def title(self) -> str:
        """What stands above it."""
        return f"{self.target} (fp32)" if self.target == _FLOAT else self.target


def put_report(manifest: Mapping[str, Any], version: str, models: Iterable[str], run_id: str,
               context: StepContext) -> tuple[dict[str, ArtifactRef], list[str]]:  # fmt: skip
    """Store the page of a release, and add it to the MLflow run that trained the model.

    Args:
        manifest: The release's.
        version: Its number in the registry.
        models: Digests of the models that this task was given.
        run_id: MLflow run, if it is known.
        context: The publish step.

    Returns:
        The output ``report``, and notes; nothing where there are no two variants to compare.

    Raises:
        Unavailable: MLflow does not answer.
    """
    columns = _columns(manifest, _documents(manifest, models, context))
    if len(columns) < 2:
        return {}, []
    folder = context.folder("report")
    _report(manifest, version, columns).write(folder)
    meta = {"page": "report.html", "variants": [column.target for column in columns]}
    found = context.put(folder, "report", meta)
    note = ""
    if run_id:
        note = add_to_run(context.request.tracking_uri, run_id, {}, dict.fromkeys(sorted(folder.iterdir()), PLACE))
    return {"report": found}, [note] if note else []


# -- what was measured -----------------------------------------------------------------------------------------------


def _documents(manifest: Mapping[str, Any], models: Iterable[str], context: StepContext) -> list[dict[str, Any]]:
    """Return what the quantize tasks wrote that made the release's variants; this run's come first."""
    own = context.request.identity
    lineages = [manifest["lineage"], *(entry["added"] for entry in manifest["variants"] if entry.get("added"))]
    runs = dict.fromkeys([(own.dag_id, own.run_id), *((line["dag_id"], line["run_id"]) for line in lineages)])
    found = []
    for dag_id, run_id in runs:
        record = RunRecord(context.store, Identity(dag_id=dag_id, run_id=run_id, task_id="-"))
        given = [*models] if (dag_id, run_id) == (own.dag_id, own.run_id) else []
        found += [_read(task, context) for task in _compilers(record, [*given, *_published(record, manifest)])]
    return [document for document in found if document is not None]


def _published(record: RunRecord, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the digests of the models that a run made this release of, or added to it."""
    for task in record.tasks:
        if task.result.step == "publish" and task.result.tags.get("release_digest") == manifest["digest"]:
            yield from (model["sha256"] for model in task.request.config.get("models", []))


def _compilers(record: RunRecord, models: list[str]) -> list[TaskRecord]:
    """Return the quantize tasks that compiled what some models were compiled from, whatever the target.

    Instances that add variants at the same time so find each other's, though none of them has ended yet.
    """
    tasks = [task for task in record.tasks if task.result.step == "quantize" and "report" in task.result.outputs]
    makers = {task.result.identity.key for task in record.ancestors(models)}
    source_of = {task.result.identity.key: source.sha256 for task in tasks if (source := task.input("model"))}
    sources = {sha256 for key, sha256 in source_of.items() if key in makers}
    return [task for task in tasks if source_of.get(task.result.identity.key) in sources]


def _read(task: TaskRecord, context: StepContext) -> dict[str, Any] | None:
    try:
        document = json.loads((context.fetch(task.result.outputs["report"]) / "metrics.json").read_bytes())
    except (StoreError, DamagedArtifact, OSError):  # an old run's reports may be gone
        return None
    return dict(document)


def _columns(manifest: Mapping[str, Any], documents: list[dict[str, Any]]) -> list[Column]:
    entries = {entry["target"]: entry for entry in manifest["variants"]}
    columns = [_column(entry, documents) for entry in manifest["variants"] if entry["metrics"]]
    if _FLOAT not in entries:  # every variant was measured beside it, also where it is not published
        known = next((one["variants"][_FLOAT] for one in documents if _FLOAT in one["variants"]), None)
        columns += [_described(_FLOAT, known, None)] if known is not None else []
    return sorted(columns, key=lambda column: column.target != _FLOAT)


def _column(entry: Mapping[str, Any], documents: list[dict[str, Any]]) -> Column:
    target = entry["target"]
    fitting = [one for one in documents if one["variants"].get(target, {}).get("sha256") == entry["sha256"]]
    if fitting:
        whole = next((one for one in fitting if one["target"] == target), None)
        return _described(target, (whole or fitting[0])["variants"][target], whole)
    quality = {name: value for name, value in entry["metrics"].items() if name != "size_bytes"}
    return Column(target, quality, entry["verified"], entry["metrics"].get("size_bytes"))


def _described(target: str, known: Mapping[str, Any], whole: Mapping[str, Any] | None) -> Column:
    """Return a column from a task's report.

    Args:
        target: Of the variant.
        known: What the report says of it.
        whole: The report, if the task was for this target.
    """
    against, gates = (whole["metrics"], whole["gates"]) if whole else ({}, [])
    return Column(
        target, known["quality"], known["verified"], known["size_bytes"], known["latency"], known["threads"],
        against, tuple(GateResult(**gate) for gate in gates),
    )  # fmt: skip


# -- the page --------------------------------------------------------------------------------------------------------


def _report(manifest: Mapping[str, Any], version: str, columns: list[Column]) -> Report:
    gates = [GateResult(**{**vars(gate), "metric": f"{column.target}: {gate.metric}"})
             for column in columns for gate in column.gates]  # fmt: skip
    report = Report(
        title=f"{manifest['name']} version {version}: variants",
        subtitle="each as its quantize task measured it, on the machine where that ran; times are of a warm model",
        gates=gates,
    )
    titles = [column.title for column in columns]
    report.tables = [Table("Variants", ("", *titles), list(_rows(columns))), _how(columns)]
    report.charts = _charts(columns)
    report.facts = {"release": f"digest {manifest['digest']}", "default variant": manifest["default_variant"]}
    report.data = {"version": 1, "name": manifest["name"], "digest": manifest["digest"],
                   "variants": {column.target: _as_data(column) for column in columns}}  # fmt: skip
    return report


def _rows(columns: list[Column]) -> Iterator[tuple[Any, ...]]:
    for name in dict.fromkeys(name for column in columns for name in column.quality):
        yield name, *(column.quality.get(name) for column in columns)
    yield from _measured(columns, _AGAINST)
    yield "size in bytes", *(column.size for column in columns)
    yield from _measured(columns, {"size_ratio": "size, times fp32"})
    for batch, words in _BATCHES.items():
        for key, share in (("p50", "median"), ("p99", "99 of 100")):
            yield f"{words}, microseconds ({share})", *(column.latency.get(batch, {}).get(key) for column in columns)
    yield from _measured(columns, _SPEED)
    yield "threads", *(column.threads if column.latency else None for column in columns)


def _measured(columns: list[Column], names: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    for name, words in names.items():
        if any(name in column.against for column in columns):
            yield words, *(column.against.get(name) for column in columns)


def _how(columns: list[Column]) -> Table:
    rows = []
    for column in columns:
        verified, reason = column.verified, column.verified.get("unverified")
        run_by = f"unverified: {reason}" if reason else str(verified.get("runtime") or "-")
        failed = sum(not gate.passed for gate in column.gates)
        gates = f"{len(column.gates) - failed} of {len(column.gates)} passed" if column.gates else "none"
        rows.append((column.title, run_by, verified.get("part") or "-", verified.get("rows"), gates))
    return Table("How each was run", ("variant", "run by", "part", "rows", "gates"), rows)


def _charts(columns: list[Column]) -> dict[str, bytes]:
    from edgewright.steps import plots

    charts: dict[str, bytes] = {}
    name = next((name for name in _QUALITY if any(name in column.quality for column in columns)), None)
    if name is not None:
        places = {column.title: (column.size, column.quality[name]) for column in columns
                  if name in column.quality and column.size}  # fmt: skip
        charts[f"size_and_{name}"] = plots.named_points(f"Size and {name}", "bytes", name, places)
    for batch, words in _BATCHES.items():
        times = {column.title: column.latency[batch]["p50"] for column in columns if batch in column.latency}
        if times:
            charts[f"latency_{batch}"] = plots.bars(words.capitalize(), "microseconds (median)", times)
    return charts


def _as_data(column: Column) -> dict[str, Any]:
    return {
        "size_bytes": column.size, "quality": column.quality, "latency": column.latency, "threads": column.threads,
        "verified": column.verified, "against": column.against, "gates": [vars(gate) for gate in column.gates],
    }  # fmt: skip
