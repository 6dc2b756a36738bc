"""``evaluate``: measure a model on rows that it has not seen, judge its gates, and write the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from edgewright.errors import DataError, EdgewrightError, GateResult
from edgewright.spec.gates import check_gates
from edgewright.spec.steps.evaluate import CLASSIFICATION_METRICS, METRICS, REGRESSION_METRICS, EvaluateConfig
from edgewright.steps import metrics, plots
from edgewright.steps.champion import Search, compares, find_champion, fits, load_champion
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import Dataset
from edgewright.steps.models import LoadedModel, load_model
from edgewright.steps.originals import with_columns
from edgewright.steps.reports import Report, Table
from edgewright.steps.sweeps import compare as compare_runs
from edgewright.steps.tracking import add_to_run

_EXPLAINED = {
    "precision": "of the rows said to be positive, the share that is",
    "recall": "of the positive rows, the share that was found",
    "roc_auc": "chance that a positive row scores above a negative one",
    "log_loss": "lower is better",
    "brier": "mean squared error of the probabilities; lower is better",
    "mae": "mean absolute error",
    "rmse": "root of the mean squared error",
    "r2": "share of the spread that is explained",
}


@dataclass
class Evaluation:
    """Everything that was measured.

    Attributes:
        part: Which part of the dataset.
        truth: Labels and scores of its rows.
        measured: The model's metrics.
        champion: The champion's metrics on the same rows; empty where there is none.
        champion_name: Name and version for people.
        slices: Metrics of groups of rows.
        note: Why there is no champion, or what it is.
        notes: Sentences for the log.
    """

    part: str
    truth: metrics.Truth
    measured: dict[str, float]
    champion: dict[str, float] = field(default_factory=dict)
    champion_name: str = ""
    slices: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def differences(self) -> dict[str, float]:
        """Challenger minus champion, by ``<metric>_vs_champion``."""
        return {
            f"{name}_vs_champion": value - self.champion[name]
            for name, value in self.measured.items()
            if name in self.champion
        }


def run(config: EvaluateConfig, context: StepContext) -> StepOutput:
    """Measure a model.

    Raises:
        DataError: the data do not fit the model, or cannot give a metric that a gate names.
        ConfigError: a gate names a metric that does not exist for this kind of model.
        Unavailable: the registry or MLflow does not answer.
    """
    model = load_model(context.fetch(config.model))
    dataset = with_columns(model.document.feature_names, Dataset.open(context.fetch(config.data)), context)
    part, frame, y = metrics.held_out(dataset)
    truth = metrics.compare(model, frame, y, config.positive)
    found = Evaluation(part, truth, metrics.measure(truth))
    found.slices = metrics.slices(truth, frame, config.slices)
    _against_champion(found, config, context, frame, y)
    gates = judge(found, config)
    folder = context.folder("report")
    _report(found, gates, model, config, context).write(folder)
    notes = list(found.notes)
    if config.model.meta.get("mlflow_run_id") and context.request.tracking_uri:
        note = add_to_run(
            context.request.tracking_uri,
            str(config.model.meta["mlflow_run_id"]),
            {**found.measured, **found.differences},
            {folder / "report.html": "evaluation", folder / "metrics.json": "evaluation"},
        )
        notes += [note] if note else []
        if not note:
            compare_runs(context, str(config.model.meta["mlflow_run_id"]))
    measured = {"rows": float(len(y)), **found.measured, **found.differences}
    return StepOutput(
        {"report": context.put(folder, "report", _meta(found, gates))}, measured, gates=gates, notes=notes
    )


def _meta(found: Evaluation, gates: list[GateResult]) -> dict[str, Any]:
    return {
        "page": "report.html",
        "part": found.part,
        "rows": len(found.truth.y),
        "gates": len(gates),
        "failed": sum(not gate.passed for gate in gates),
    }


def _against_champion(
    found: Evaluation, config: EvaluateConfig, context: StepContext, frame: pd.DataFrame, y: pd.Series[Any]
) -> None:
    search: Search = find_champion(config, context)
    found.note = search.note
    if search.champion is None:
        found.notes.append(search.note)
        return
    name = f"{search.champion.name} version {search.champion.version}"
    try:
        champion = load_champion(search.champion, context)
        problem = fits(champion, found.truth.problem, list(frame.columns), name)
        if problem is not None:
            raise problem
        found.champion = metrics.measure(metrics.compare(champion, frame, y, config.positive))
    except EdgewrightError as error:
        if compares(config):
            raise
        found.note = f"not compared: {error.message}"
        found.notes.append(found.note)
        return
    found.champion_name = name
    found.note = f"champion is {name}"


def judge(found: Evaluation, config: EvaluateConfig) -> list[GateResult]:
    """Return every gate's verdict.

    Raises:
        DataError: these rows cannot give a metric that a gate names.
        ConfigError: a gate names something that is no metric of this kind of model.
    """
    names = CLASSIFICATION_METRICS if found.truth.problem == "classification" else REGRESSION_METRICS
    measured: dict[str, float | None] = {**found.measured, **found.differences}
    notes: dict[str, str] = {}
    for name in names:
        key = f"{name}_vs_champion"
        if not found.champion_name:
            measured[key], notes[key] = None, found.note
        elif name in found.champion:
            notes[key] = f"{found.champion_name} has {found.champion[name]:.6g}"
        _explain_missing(name, key, found, config)
    return check_gates(config.gates, measured, notes)


def _explain_missing(name: str, key: str, found: Evaluation, config: EvaluateConfig) -> None:
    gated = name in config.gates or key in config.gates
    if gated and name not in found.measured:
        raise DataError(
            f"{name} cannot be measured on the part {found.part}: it needs rows of at least two kinds",
            where="gates",
            hint="bring more rows, split with stratify: true, or gate another metric",
        )


# -- the report ------------------------------------------------------------------------------------------------------


def _report(
    found: Evaluation, gates: list[GateResult], model: LoadedModel, config: EvaluateConfig, context: StepContext
) -> Report:
    identity = context.request.identity
    report = Report(
        title=f"{identity.dag_id}: quality",
        subtitle=f"{len(found.truth.y):,} rows of the part {found.part}, label {model.document.label}",
        gates=gates,
    )
    report.tables.append(_metric_table(found))
    report.charts = _charts(found.truth)
    if found.slices:
        report.tables += _slice_tables(found)
    report.facts = {
        "run": f"{identity.run_id}, task {identity.task_id}",
        "model": f"{model.document.details.get('estimator', model.document.target)}, sha256 {config.model.sha256}",
        "dataset": f"sha256 {config.data.sha256}",
        "positive class": _positive(found.truth),
        "champion": found.note or "-",
    }
    report.data = _document(found, gates, config)
    return report


def _positive(truth: metrics.Truth) -> str:
    if truth.problem == "regression":
        return "-"
    return str(truth.classes[truth.positive]) if len(truth.classes) == 2 else "none: averages are macro"


def _document(found: Evaluation, gates: list[GateResult], config: EvaluateConfig) -> dict[str, Any]:
    truth = found.truth
    document: dict[str, Any] = {
        "version": 1,
        "problem": truth.problem,
        "part": found.part,
        "rows": len(truth.y),
        "metrics": found.measured,
        "champion": {"model": found.champion_name or None, "metrics": found.champion, "note": found.note},
        "differences": found.differences,
        "slices": found.slices,
        "gates": [vars(gate) for gate in gates],
        "model": config.model.sha256,
        "dataset": config.data.sha256,
    }
    if truth.problem == "classification":
        document["classes"] = truth.classes
        document["confusion"] = metrics.confusion(truth)
    return document


def _metric_table(found: Evaluation) -> Table:
    names = [name for name in METRICS if name in found.measured]
    if not found.champion_name:
        rows = [(name, found.measured[name], _EXPLAINED.get(name, "")) for name in names]
        return Table("Metrics", ("metric", "model", ""), rows, note=found.note)
    compared = [
        (name, found.measured[name], found.champion.get(name), found.differences.get(f"{name}_vs_champion"),
         _EXPLAINED.get(name, ""))
        for name in names
    ]  # fmt: skip
    head = ("metric", "model", found.champion_name, "difference", "")
    return Table("Metrics", head, compared, note="both measured on the same rows in this task")


def _slice_tables(found: Evaluation) -> list[Table]:
    names = [name for name in METRICS if name in found.measured]
    tables = []
    for column in dict.fromkeys(entry["column"] for entry in found.slices):
        rows = [
            (entry["group"], entry["rows"], *(entry["metrics"].get(name) for name in names))
            for entry in found.slices
            if entry["column"] == column
        ]
        tables.append(Table(f"By {column}", ("group", "rows", *names), rows, note=_gap_note(rows)))
    return tables


def _gap_note(rows: list[tuple[Any, ...]]) -> str:
    gaps = any(cell is None for row in rows for cell in row)
    return "- : not measurable, the group holds one class only" if gaps else ""


def _charts(truth: metrics.Truth) -> dict[str, bytes]:
    if truth.problem == "regression":
        return {"predicted_and_true": plots.predicted_and_true(truth), "residuals": plots.residuals(truth)}
    return {
        "confusion_matrix": plots.confusion_matrix(metrics.confusion(truth), truth.classes),
        "roc": plots.roc(truth),
        "calibration": plots.calibration(truth),
    }
