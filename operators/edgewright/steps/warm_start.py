"""``warm_start:``: training goes on from a registered model instead of from nothing.

Which model that is, the registry says; its bytes come from this installation's own artifact store, by the digest that
the run which made it left there. So no pickle is ever loaded that somebody else registered.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, EdgewrightError, SystemFault
from edgewright.spec.steps.train import TrainConfig
from edgewright.steps.context import StepContext
from edgewright.steps.contract import Identity
from edgewright.steps.run_record import RunRecord

if TYPE_CHECKING:
    from edgewright.steps.data import Dataset

log = logging.getLogger("edgewright.steps")


@dataclass(frozen=True)
class Start:
    """Where training begins.

    Attributes:
        note: For people: from which version, or why from nothing.
        version: ``NAME version N``; empty for a cold start.
        digest: Of the version's release.
        ref: The model as it was trained; ``None`` for a cold start.
    """

    note: str
    version: str = ""
    digest: str = ""
    ref: ArtifactRef | None = None


@dataclass(frozen=True)
class Loaded:
    """A start, ready to be handed to the user's code.

    Attributes:
        start: What it is.
        model: The estimator, or the path of the ONNX file; ``None`` for a cold start.
        file: The model's file; ``None`` for a cold start.
        classes: The label's values that the model knows.
    """

    start: Start
    model: Any = None
    file: Path | None = None
    classes: list[Any] = field(default_factory=list)


# The cache key and the training must speak of the same version, though the alias may move between the two.
_FOUND: weakref.WeakKeyDictionary[StepContext, Start] = weakref.WeakKeyDictionary()


def state(config: TrainConfig, context: StepContext) -> dict[str, Any] | None:
    """Return the version that the result depends on, for the cache key."""
    if config.warm_start is None:
        return {}
    try:
        start = find_start(config.warm_start, context)
    except SystemFault:
        return None  # run() says the same, with the task's own words around it
    return {"warm_start": start.digest or None}


def find_start(alias: str, context: StepContext) -> Start:
    """Return where training begins; asked once a task.

    Raises:
        ConfigError: the pipeline publishes no model, so there is none to go on from.
        Unavailable: the registry does not answer.
    """
    if context not in _FOUND:
        _FOUND[context] = _find(alias, context)
    return _FOUND[context]


def _find(alias: str, context: StepContext) -> Start:
    name = context.request.registered_model
    if not name:
        raise ConfigError("warm_start needs a model that this pipeline publishes", hint="add a publish task")
    if not context.request.tracking_uri:
        return Start("no registry here: training starts from nothing")
    from edgewright.registry import Registry

    version = Registry(context.request.tracking_uri).champion(name, alias)
    if version is None:
        return Start(f"{name} has no {alias} yet: training starts from nothing")
    shown = f"{name} version {version.version}"
    ref = _original(version.tags, context)
    if ref is None:
        return Start(f"{shown} was not trained in this store: training starts from nothing", digest=version.digest)
    return Start(f"training goes on from {shown}", shown, version.digest, ref)


def _original(tags: dict[str, str], context: StepContext) -> ArtifactRef | None:
    """Return the model as the run that published a version had trained it."""
    if not all(tags.get(key) for key in ("dag_id", "run_id", "task_id")):
        return None
    identity = Identity(dag_id=tags["dag_id"], run_id=tags["run_id"], task_id=tags["task_id"])
    record = RunRecord(context.store, identity)
    release = next((task for task in record.tasks if task.task == identity.task_id), None)
    for entry in release.request.config.get("models", []) if release is not None else []:
        ref = ArtifactRef.model_validate(entry)
        for _ in range(len(record.tasks) + 1):
            maker = record.maker(ref.sha256)
            if maker is None:
                break
            if maker.result.step == "train":
                return maker.result.outputs["model"]
            before = maker.input("model")
            if before is None:
                break
            ref = before
    return None


def load_start(config: TrainConfig, context: StepContext, dataset: Dataset, problem: str) -> Loaded:
    """Load what training goes on from; a model that does not fit the data is left alone, and that is said.

    Raises:
        Unavailable: the registry or the store does not answer.
    """
    start = find_start(str(config.warm_start), context)
    if start.ref is None:
        return _told(Loaded(start))
    from edgewright.steps.models import load_model

    try:
        folder = context.fetch(start.ref)
        found = load_model(folder)
    except SystemFault:
        raise
    except EdgewrightError as error:
        return _told(Loaded(Start(f"{start.version} cannot be loaded ({error.message}): training starts from nothing")))
    document = found.document
    reason = _misfit(document, dataset, problem)
    if reason:
        return _told(Loaded(Start(f"{start.version} {reason}: training starts from nothing")))
    file = folder / document.file
    estimator = getattr(found, "estimator", None)
    return _told(Loaded(start, file if estimator is None else _own(estimator), file, list(document.classes)))


def _told(found: Loaded) -> Loaded:
    log.info("%s", found.start.note)
    return found


def _misfit(document: Any, dataset: Dataset, problem: str) -> str:
    if document.problem != problem:
        return f"is for {document.problem}"
    absent = [name for name in document.feature_names if name not in dataset.features]
    if absent and not dataset.transforms:
        return f"takes {', '.join(absent)}, which the data do not have"
    if problem == "classification":
        entry = dataset.manifest["parts"].get("train", {}).get("classes", {})
        new = sorted(set(entry) - set(map(str, document.classes)))
        if new:
            return f"does not know the class {', '.join(new)}"
    return ""


def _own(estimator: Any) -> Any:
    """Return the estimator that the user's function returned, without the transformers that train put before it."""
    names = [name for name, _ in getattr(estimator, "steps", [])]
    return estimator.named_steps["model"] if names == ["transform", "model"] else estimator
