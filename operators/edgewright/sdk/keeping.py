"""A notebook's model becomes an artifact, by the same rules as what a train task returns."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from edgewright.artifacts import ArtifactRef
from edgewright.cli.dataset_versions import DatasetVersion
from edgewright.errors import ConfigError
from edgewright.sdk.runs import request_of
from edgewright.steps import metrics
from edgewright.steps.context import StepContext
from edgewright.steps.contract import Identity, StepResult
from edgewright.steps.frameworks import framework_of
from edgewright.steps.models import load_model
from edgewright.steps.tracking import TrackedRun
from edgewright.steps.training_data import TrainingData

_PROBLEMS = ("auto", "classification", "regression")


def keep(
    model: Any, data: DatasetVersion, problem: str, identity: Identity, tracked: TrackedRun
) -> tuple[ArtifactRef, dict[str, float]]:
    """Write a model's folder, measure it as later steps will load it, and store it.

    Returns:
        Its artifact, and its metrics on the part ``train``.
    """
    if problem not in _PROBLEMS:
        raise ConfigError(f"no such problem: {problem}", hint=f"one of {', '.join(_PROBLEMS)}")
    dataset = data.open()
    kind: Any = dataset.problem if problem == "auto" else problem
    request = request_of("train", {}, identity)
    with StepContext(request) as context:
        rows = TrainingData(dataset, kind, seed=0, sink=tracked, source_folder=Path.cwd())
        folder = context.folder("model")
        document = framework_of(model, "the notebook").save(model, folder, rows)
        with contextlib.redirect_stdout(io.StringIO()):
            loaded = load_model(folder)
        truth = metrics.compare(loaded, rows.frame, rows.y)
        measured = {"rows": float(len(rows))}
        measured |= {f"train_{name}": value for name, value in metrics.measure(truth).items()}
        tracked.log_metrics(measured)
        meta = {
            "problem": document.problem, "format": document.format, "target": document.target, "label": document.label,
            "features": len(document.features), "rows": len(rows),
        }  # fmt: skip
        if tracked.run_id:
            meta["mlflow_run_id"] = tracked.run_id
        ref = context.put(folder, "model", meta)
        # what publish reads of a run: which task made the model, from which data
        taken = request.model_copy(update={"config": {"data": data.ref.model_dump(mode="json")}})
        context.store.write_json(f"{identity.key}/request.json", taken.model_dump(mode="json"))
        result = StepResult(
            step="train", identity=identity, outputs={"model": ref}, metrics=measured, started=data.made
        )
        context.store.write_json(f"{identity.key}/result.json", result.model_dump(mode="json"))
    return ref, measured
