"""What the other tasks of the same run left in the artifact store: where a model comes from and how it was judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.steps.contract import Identity, StepRequest, StepResult


@dataclass(frozen=True)
class TaskRecord:
    """One task that succeeded."""

    request: StepRequest
    result: StepResult

    @property
    def task(self) -> str:
        """Its name."""
        return self.result.identity.task_id

    def input(self, place: str) -> ArtifactRef | None:
        """Return an artifact that the task took in, by the key of its ``with:``."""
        value = self.request.config.get(place)
        try:
            return ArtifactRef.model_validate(value) if isinstance(value, dict) else None
        except ValidationError:
            return None

    def made(self, sha256: str) -> bool:
        """Whether the task's outputs hold an artifact."""
        return any(ref.sha256 == sha256 for ref in self.result.outputs.values())


class RunRecord:
    """The tasks of one run that succeeded, the earliest first.

    Args:
        store: The artifact store.
        identity: Any task of the run.
    """

    def __init__(self, store: ArtifactStore, identity: Identity) -> None:
        prefix = identity.key.rpartition("/")[0]
        found = []
        for key in store.list_keys(prefix):
            if key.endswith("/result.json") and key.count("/") == prefix.count("/") + 2:
                record = _read(store, key.rpartition("/")[0])
                if record is not None and record.result.state == "success":
                    found.append(record)
        self.tasks = sorted(found, key=lambda record: (record.result.started, record.task))

    def maker(self, sha256: str) -> TaskRecord | None:
        """Return the task that made an artifact."""
        return next((record for record in self.tasks if record.made(sha256)), None)

    def ancestors(self, models: Iterable[str]) -> list[TaskRecord]:
        """Return the tasks that made some models, and those that made the models which these were compiled from."""
        found: list[TaskRecord] = []
        waiting = list(models)
        while waiting:
            record = self.maker(waiting.pop(0))
            if record is not None and record not in found:
                found.append(record)
                source = record.input("model")
                waiting += [source.sha256] if source else []
        return found

    def evaluations(self, models: set[str]) -> list[TaskRecord]:
        """Return the ``evaluate`` tasks that measured one of some models."""
        found = []
        for record in self.tasks:
            model = record.input("model")
            if record.result.step == "evaluate" and model is not None and model.sha256 in models:
                found.append(record)
        return found


def _read(store: ArtifactStore, folder: str) -> TaskRecord | None:
    request, result = store.read_json(f"{folder}/request.json"), store.read_json(f"{folder}/result.json")
    try:
        return TaskRecord(StepRequest.model_validate(request), StepResult.model_validate(result))
    except ValidationError:  # written by another version of this package
        return None


def family(record: RunRecord, models: Iterable[str]) -> set[str]:
    """Return the digests of some models and of all models that they were compiled from or together with."""
    models = set(models)
    for task in record.ancestors(models):
        models |= {ref.sha256 for ref in task.result.outputs.values() if ref.kind == "model"}
    return models
