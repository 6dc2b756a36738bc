"""A notebook's model before the pipeline's own gates, and into the registry as a challenger."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import ConfigError, GateFailed
from edgewright.sdk.runs import KeptModel, request_of
from edgewright.spec import load_pipeline
from edgewright.spec.pipeline import Pipeline, Reference, Task, Template
from edgewright.steps.contract import Gate, Source, StepResult
from edgewright.steps.execute import execute

if TYPE_CHECKING:
    from edgewright.cli.dataset_versions import DatasetVersion


@dataclass(frozen=True)
class Verdict:
    """What a model measured on rows that it has not seen.

    Attributes:
        metrics: By name.
        gates: Each limit with its verdict.
        report: Folder with the report (``report.html``).
    """

    metrics: dict[str, float]
    gates: list[Gate]
    report: Path | None

    @property
    def passed(self) -> bool:
        """Whether every gate was met."""
        return all(gate.passed for gate in self.gates)

    def __str__(self) -> str:
        lines = [f"{'passed' if g.passed else 'FAILED'}  {_gate(g)}" for g in self.gates]
        return "\n".join(lines) or "no gates"

    def _repr_html_(self) -> str:
        marks = {True: "&#10003;", False: "&#10007;"}
        rows = "".join(f"<tr><td>{marks[g.passed]}</td><td>{html.escape(_gate(g))}</td></tr>" for g in self.gates)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"<table>{rows}</table>{html.escape(numbers)}"


def _gate(gate: Gate) -> str:
    value = "not measured" if gate.value is None else f"{gate.value:.4g}"
    return f"{gate.metric} {value} {gate.operator} {gate.limit:g}{f' ({gate.note})' if gate.note else ''}"


def evaluate(
    model: KeptModel,
    data: DatasetVersion | None = None,
    *,
    pipeline: str | Path | None = None,
    task: str | None = None,
    gates: dict[str, str] | None = None,
) -> Verdict:
    """Measure a model as an ``evaluate`` task does, on ``holdout`` or else ``test``.

    Args:
        model: What :meth:`Run.keep` returned.
        data: Default: the dataset that it was trained on.
        pipeline: File or folder of a pipeline: its gates, slices and champion count.
        task: Which of its ``evaluate`` tasks, where there are several.
        gates: Limits instead of the pipeline's.

    Raises:
        ConfigError: the pipeline has no such task, or a gate there waits for a param.
    """
    config: dict[str, Any] = {}
    registered = None
    source = None
    if pipeline is not None:
        found = load_pipeline(_file(Path(pipeline)))
        config = _plain(_evaluate_task(found, task))
        registered = found.registered_model
        source = Source(folder=str(found.folder), document=found.file.name)
    if gates is not None:
        config["gates"] = gates
    identity = model.identity.model_copy(update={"task_id": f"{model.identity.task_id}-evaluate"})
    config |= {"model": model.ref.model_dump(mode="json"), "data": (data or model.data).ref.model_dump(mode="json")}
    request = request_of("evaluate", config, identity, source).model_copy(update={"registered_model": registered})
    result = _answer(request)
    report = result.outputs.get("report")
    return Verdict(dict(result.metrics), result.gates, model.data.store.fetch(report) if report else None)


def _answer(request: Any) -> StepResult:
    """Answer a request; gates that are not met are a verdict here, not an error."""
    from edgewright.artifacts import ArtifactStore

    store = ArtifactStore(request.store)
    try:
        return execute(request, store=store)
    except GateFailed:
        return StepResult.model_validate(store.read_json(f"{request.identity.key}/result.json"))


def _file(place: Path) -> Path:
    if not place.is_dir():
        return place
    file = place / "pipeline.yaml"
    if not file.is_file():
        raise ConfigError(f"no pipeline.yaml in {place}", hint="name the pipeline's file")
    return file


def _evaluate_task(pipeline: Pipeline, name: str | None) -> Task:
    tasks = [task for task in pipeline.tasks if task.uses == "evaluate"]
    fitting = [task for task in tasks if name in (None, task.id)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(task.id for task in tasks) or "none"
    if fitting:
        raise ConfigError(f"{pipeline.dag_id} has several evaluate tasks", hint=f"say task=: one of {known}")
    what = f"no evaluate task {name}" if name else "no evaluate task"
    raise ConfigError(f"{pipeline.dag_id} has {what}", hint=f"it has: {known}")


def _plain(task: Task) -> dict[str, Any]:
    """Return a task's configuration without its inputs, which are given here."""
    config = {key: value for key, value in task.config.items() if key not in ("model", "data")}
    waiting = [key for key, value in config.items() if _waits(value)]
    if waiting:
        raise ConfigError(
            f"{', '.join(waiting)} of task {task.id} is known in a run only", hint="give gates= of your own"
        )
    return config


def _waits(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_waits, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_waits, value))
    return isinstance(value, (Reference, Template))


def register(
    model: KeptModel, name: str, *, alias: str | None = "challenger", description: str = "", tags: Any = None
) -> str:
    """Register a model as a version, as a ``publish`` task does, and give it an alias.

    Args:
        model: What :meth:`Run.keep` returned.
        name: The registered model.
        alias: ``challenger`` by default: a pipeline's own gates decide on the champion.
        description: For people.
        tags: Of the version, texts by name.

    Returns:
        The version's number, as MLflow has it.

    Raises:
        Unavailable: the registry does not answer.
    """
    identity = model.identity.model_copy(update={"task_id": f"{model.identity.task_id}-publish"})
    config = {
        "models": [model.ref.model_dump(mode="json")], "name": name, "alias": alias, "description": description,
        "tags": dict(tags or {}),
    }  # fmt: skip
    result = execute(request_of("publish", config, identity))
    return result.tags["model_version"]
