"""``train``: run the user's function or program on the part ``train``, check what it makes, and keep it."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import random
import shutil
import typing
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from edgewright.artifacts.digest import list_files
from edgewright.errors import ConfigError
from edgewright.spec.steps.train import TrainConfig
from edgewright.steps import checkpoints, metrics, warm_start
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
            f"{code} does not take {missing[0]}, which the task gives", where=_where(function, folder),
            hint=f"def {_name(function)}(data, ..., {missing[0]}=None): it is None where there is none yet",
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
    target = context.folder("snapshot")
    for name in list_files(folder):
        if (
            name in used
            and (folder / name).stat().st_size <= _SNAPSHOT_LIMIT
            and name.endswith((".py", ".yaml", ".yml", Path(config.code.rpartition(":")[0] or config.code).suffix))
        ):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
    tracked.log_folder(target, "source")


# -- arguments -------------------------------------------------------------------------------------------------------


def check_arguments(function: Callable[..., Any], args: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the arguments as the function's annotations want them.

    An integer may stand for a float; nothing else is converted that JSON does not force (lists to tuples, texts to
    paths, dates and enumerations).

    Args:
        function: The user's function; its first parameter is the data.
        args: ``args:`` of the task.
        folder: The pipeline's folder, for messages.

    Raises:
        ConfigError: with every fault at once, and the function's file and line.
    """
    where = _where(function, folder)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return dict(args)
    parameters = list(signature.parameters.values())
    if not parameters:
        raise ConfigError(f"{_name(function)}() takes no data", where=where, hint="its first parameter is the data")
    accepted = {p.name: p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    faults = [] if takes_any else [_unknown(name, accepted) for name in args if name not in accepted]
    needed = [p.name for p in accepted.values() if p.default is p.empty and p.name not in args]
    faults += [f"args: {name} is missing" for name in needed]
    hints = _annotations(function)
    checked: dict[str, Any] = {}
    for name, value in args.items():
        checked[name], fault = _convert(name, value, hints.get(name)) if name in accepted else (value, None)
        faults += [fault] if fault else []
    if faults:
        shown = ", ".join(map(_show, accepted.values())) or "no arguments"
        hint = f"{_name(function)} takes: {shown}"
        if any(" not '" in fault for fault in faults):
            hint += "; a template with anything beside {{ params.X }} gives text"
        raise ConfigError("; ".join(faults), where=where, hint=hint)
    return checked


def _show(parameter: inspect.Parameter) -> str:
    kind = parameter.annotation
    text = parameter.name
    if kind is not parameter.empty:
        text += f": {kind if isinstance(kind, str) else getattr(kind, '__name__', kind)}"
    return text if parameter.default is parameter.empty else f"{text} = {parameter.default!r}"


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _where(function: Callable[..., Any], folder: Path) -> str:
    try:
        file = Path(inspect.getsourcefile(function) or "").resolve()
        line = inspect.getsourcelines(function)[1]
    except (TypeError, OSError):
        return _name(function)
    shown = file.relative_to(folder.resolve()) if file.is_relative_to(folder.resolve()) else file.name
    return f"{shown}:{line}"


def _unknown(name: str, accepted: Mapping[str, inspect.Parameter]) -> str:
    near = get_close_matches(name, accepted, n=1)
    return f"args: no such argument: {name}" + (f'; did you mean "{near[0]}"?' if near else "")


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations that can be evaluated; one that only a type checker sees must not hide the others."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation is any expression
        names = getattr(function, "__globals__", {})
        found: dict[str, Any] = {}
        for name, annotation in getattr(function, "__annotations__", {}).items():
            try:
                holder = type("holder", (), {"__annotations__": {name: annotation}})
                found[name] = typing.get_type_hints(holder, names)[name]
            except Exception:  # noqa: S112
                continue
        return found


def _convert(name: str, value: Any, annotation: Any) -> tuple[Any, str | None]:
    if annotation is None or annotation is Any:
        return value, None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        return adapter.validate_json(json.dumps(value), strict=True), None
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeError):
        return value, None  # a type that no schema knows, such as an array's
    except ValidationError as error:
        wanted = getattr(annotation, "__name__", str(annotation))
        reason = error.errors()[0]["msg"]
        return value, f"args: {name} must be {wanted}, not {value!r} ({reason})"
