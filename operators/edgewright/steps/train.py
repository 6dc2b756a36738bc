"""``train``: run the user's function or program on the part ``train``, check what it makes, and keep it."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.artifacts.digest import list_files
from edgewright.errors import ConfigError
from edgewright.spec.steps.train import TrainConfig
from edgewright.steps import checkpoints, metrics, warm_start
from edgewright.steps.arguments import check_arguments, name_of, where_of
from edgewright.steps.code import code_digests, load_entry, user_code
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import Dataset
from edgewright.steps.environment import version_of
from edgewright.steps.frameworks import check_estimator, framework_of
from edgewright.steps.models import ModelDocument, Problem, load_model
from edgewright.steps.originals import compose, original_of
from edgewright.steps.sweeps import parent_tags
from edgewright.steps.tracking import TrackedRun, track
from edgewright.steps.train_program import PAGE, Produced, load_file, run_program
from edgewright.steps.training_data import TrainingData
from edgewright.steps.warm_start import Loaded, load_start

if TYPE_CHECKING:
    from edgewright.steps.tuning import Found

log = logging.getLogger("edgewright.steps")
_SNAPSHOT_LIMIT = 1 << 20


def run(config: TrainConfig, context: StepContext) -> StepOutput:
    """Train one model.

    Raises:
        ConfigError: the arguments do not fit the function.
        UserCodeError: the function or program failed, or made something that is no model.
        Unavailable: MLflow does not answer.
    """
    dataset = Dataset.open(context.fetch(config.data))
    problem: Problem = dataset.problem if config.problem == "auto" else config.problem  # type: ignore[assignment]
    request = context.request
    folder = context.folder("model")
    experiment, tags = config.experiment or request.identity.dag_id, _lineage(config, context)
    with track(
        request.tracking_uri,
        experiment=experiment,
        identity=request.identity.key,
        name=f"{request.identity.task_id} {request.identity.run_id}",
        tags={**tags, **parent_tags(context, experiment, tags)},
    ) as tracked:
        start = load_start(config, context, dataset, problem) if config.warm_start else None
        data = TrainingData(
            dataset, problem, seed=config.seed, sink=tracked, source_folder=context.source_folder,
            known_classes=start.classes if start else (),
        )  # fmt: skip
        config, found = _searched(config, context, dataset, problem, tracked)
        tracked.log_params(config.args)
        _snapshot(config, context, tracked)
        with _checkpoints(config, context) as kept:
            data.checkpoint = kept.folder if kept else None
            produced = None if config.entry else run_program(config, context, dataset, tracked, start, kept)
            document, data = _fit(config, context, dataset, data, folder, produced or start)
        measured = {**(produced.metrics if produced else {}), **_measure(folder, data)}
        tracked.log_metrics(measured)
        if produced is not None and produced.kept is not None:
            tracked.log_folder(produced.kept, "output")
    output = _output(context, folder, document, measured, tracked, produced)
    if found is not None:
        _add_search(output, found, context, tracked)
    if kept is not None and kept.note:
        output.notes.append(kept.note)
    if start is not None:
        output.notes.append(start.start.note)
        output.tags["warm_start"] = start.start.version
    return output


def _searched(
    config: TrainConfig, context: StepContext, dataset: Dataset, problem: Problem, tracked: TrackedRun
) -> tuple[TrainConfig, Found | None]:
    """Return the configuration with the arguments that a search found best; as it is without ``search:``."""
    if config.search is None:
        return config, None
    from edgewright.steps.tuning import search
    from edgewright.steps.tuning_runs import TrialRuns

    def fit(trial: TrainConfig, data: TrainingData) -> Any:
        return _call(trial, context, data, None)

    found = search(config, context, dataset, problem, fit, TrialRuns(context, tracked))
    return config.model_copy(update={"args": {**config.args, **found.best.values}}), found


def _add_search(output: StepOutput, found: Found, context: StepContext, tracked: TrackedRun) -> None:
    from edgewright.steps.tuning_runs import write_report

    folder = context.folder("search")
    write_report(found, folder)
    tracked.log_folder(folder, "comparison")
    output.outputs["report"] = context.put(folder, "report", {"page": PAGE})
    output.metrics |= {f"search_{found.metric}": found.best.metrics[found.metric], "trials": float(found.total)}
    output.notes.append(found.note)


def follow(config: TrainConfig, context: StepContext) -> None:
    """Run the user's code beside the node that keeps the model; what it returns or leaves is dropped.

    Raises:
        ConfigError: the arguments do not fit the function.
        UserCodeError: the function or program failed.
    """
    if config.search is not None:
        raise ConfigError("search: {method: optuna} trains on one node", hint="leave nodes: out of the profile")
    dataset = Dataset.open(context.fetch(config.data))
    problem: Problem = dataset.problem if config.problem == "auto" else config.problem  # type: ignore[assignment]
    start = load_start(config, context, dataset, problem) if config.warm_start else None
    nowhere = TrackedRun(None, "", "")
    data = TrainingData(
        dataset, problem, seed=config.seed, sink=nowhere, source_folder=context.source_folder,
        known_classes=start.classes if start else (),
    )  # fmt: skip
    kept = None
    if config.checkpoint is not None:
        state = warm_start.state(config, context)
        kept = checkpoints.of_task(config, context.request, context.store, context.folder("checkpoint"), state)
        kept.restore(claim=False)  # the first node saves
        data.checkpoint = kept.folder
    if config.entry is None:
        run_program(config, context, dataset, nowhere, start, kept, follows=True)
        return
    with user_code(context.source_folder, config.code):
        _call(config, context, data, start)


@contextlib.contextmanager
def _checkpoints(config: TrainConfig, context: StepContext) -> Iterator[checkpoints.Checkpoints | None]:
    """Keep the folder of checkpoints while the user's code runs; it begins with what the last try left."""
    if config.checkpoint is None:
        yield None
        return
    state = warm_start.state(config, context)
    kept = checkpoints.of_task(config, context.request, context.store, context.folder("checkpoint"), state)
    kept.restore()
    if kept.note:
        log.info("%s", kept.note)
    with kept:
        yield kept


def _output(
    context: StepContext,
    folder: Path,
    document: ModelDocument,
    measured: dict[str, float],
    tracked: TrackedRun,
    produced: Produced | None,
) -> StepOutput:
    meta: dict[str, Any] = {
        "problem": document.problem,
        "format": document.format,
        "target": document.target,
        "label": document.label,
        "features": len(document.features),
        "rows": int(measured["rows"]),
    }
    tags: dict[str, str] = {}
    notes: list[str] = []
    if tracked.run_id:
        tags = {"mlflow_run_id": tracked.run_id, "mlflow_experiment_id": tracked.experiment_id}
        meta["mlflow_run_id"] = tracked.run_id
    else:
        notes.append("no tracking server here: the run is not in MLflow")
    outputs = {"model": context.put(folder, "model", meta)}
    if produced is not None and produced.kept is not None:
        page = {"page": PAGE} if (produced.kept / PAGE).is_file() else {}
        outputs["report"] = context.put(produced.kept, "report", page)
    return StepOutput(outputs, measured, tags, notes=notes)


def _fit(
    config: TrainConfig,
    context: StepContext,
    dataset: Dataset,
    data: TrainingData,
    folder: Path,
    given: Produced | Loaded | None,
) -> tuple[ModelDocument, TrainingData]:
    """Call the user's function, or load what the user's program left, and write the model.

    Pickling needs the user's modules, so it happens while they are importable.

    Returns:
        The model's document, and the data in the columns that the model takes.
    """
    with user_code(context.source_folder, config.code):
        if isinstance(given, Produced):
            found = load_file(given.file, config.code)
        else:
            found = _call(config, context, data, given)
        framework = framework_of(found, config.code)
        original = original_of(dataset, context) if framework.name == "scikit-learn" else None
        if original is not None:
            # before it is wrapped: the messages speak of what the user returned
            check_estimator(found, data)
            whole = compose(found, dataset, original, context)
            found, data = (found, data) if whole is None else (whole, data.over(original))
        return framework.save(found, folder, data), data


def _call(config: TrainConfig, context: StepContext, data: TrainingData, start: Loaded | None) -> Any:
    # One JSON form, so that the same arguments make the same pickle wherever the request came from.
    args = json.loads(json.dumps(config.args))
    function = load_entry(context.source_folder, config.code)
    more = {} if start is None else {"warm_start": start.model}
    _check_takes(function, more, config.code, context.source_folder)
    args = check_arguments(function, args, context.source_folder)
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    return function(data, **args, **more)


def _check_takes(function: Callable[..., Any], given: Mapping[str, Any], code: str, folder: Path) -> None:
    """Refuse a function that does not take what the step itself hands to it."""
    parameters = inspect.signature(function).parameters.values() if given else ()
    names = {parameter.name for parameter in parameters}
    missing = [] if any(p.kind is p.VAR_KEYWORD for p in parameters) else [name for name in given if name not in names]
    if missing:
        raise ConfigError(
            f"{code} does not take {missing[0]}, which the task gives", where=where_of(function, folder),
            hint=f"def {name_of(function)}(data, ..., {missing[0]}=None): it is None where there is none yet",
        )  # fmt: skip


def _measure(folder: Path, data: TrainingData) -> dict[str, float]:
    """Load the model as later steps will, and measure it on the rows that it was trained on."""
    model = load_model(folder)
    truth = metrics.compare(model, data.frame, data.y)
    return {"rows": float(len(data)), **{f"train_{name}": value for name, value in metrics.measure(truth).items()}}


def _lineage(config: TrainConfig, context: StepContext) -> dict[str, str]:
    request = context.request
    source = request.source
    dirty = "" if source is None or source.dirty is None else str(source.dirty).lower()
    tags = {
        "edgewright.dag_id": request.identity.dag_id,
        "edgewright.run_id": request.identity.run_id,
        "edgewright.task_id": request.identity.task_id,
        "edgewright.try_number": str(request.identity.try_number),
        "edgewright.entry": config.code,
        "edgewright.seed": str(config.seed),
        "edgewright.dataset.sha256": config.data.sha256,
        "edgewright.dataset.uri": config.data.uri,
        "edgewright.pipeline.sha256": source.pipeline_digest if source else "",
        "edgewright.git.commit": (source.commit or "") if source else "",
        "edgewright.git.dirty": dirty,
        "mlflow.source.git.commit": (source.commit or "") if source else "",
        "mlflow.source.name": f"{request.identity.dag_id}/{config.code}",
        "mlflow.source.type": "PROJECT",
    }
    for library in ("edgewright", "scikit-learn", "numpy", "pandas", "onnx", "onnxruntime"):
        tags[f"edgewright.library.{library}"] = version_of(library)
    return {name: value for name, value in tags.items() if value}


def _snapshot(config: TrainConfig, context: StepContext, tracked: TrackedRun) -> None:
    """Keep the pipeline's document and the code that the function uses with the MLflow run (no large files)."""
    if not tracked.run_id or context.request.source is None:
        return
    folder = context.source_folder
    document = context.request.source.document
    used = set(code_digests(folder, config.entry_points(), document)) | {document}
    ending = Path(config.code.rpartition(":")[0] or config.code).suffix or config.code
    target = context.folder("snapshot")
    for name in list_files(folder):
        if (
            name in used
            and (folder / name).stat().st_size <= _SNAPSHOT_LIMIT
            and name.endswith((".py", ".yaml", ".yml", ending))
        ):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
    tracked.log_folder(target, "source")
