"""Results and artifacts of tasks, read from the artifact store."""

from __future__ import annotations

from pathlib import Path

from edgewright.artifacts import ArtifactStore
from edgewright.errors import NotFound
from edgewright.installation import Installation
from edgewright.steps.contract import Identity, StepResult


def load(dag_id: str, run_id: str, task_id: str, map_index: int) -> StepResult:
    """Return a task's result.

    Raises:
        NotFound: the task has not written one.
    """
    identity = Identity(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)
    document = ArtifactStore(Installation.load().store).read_json(f"{identity.key}/result.json")
    if document is None:
        raise NotFound(f"task {task_id} of run {run_id} has no result", hint="it has not run, or is no Edgewright step")
    return StepResult.model_validate(document)


def output_folder(dag_id: str, run_id: str, task_id: str, map_index: int, output: str) -> Path:
    """Return the local folder of one of a task's artifacts.

    Raises:
        NotFound: there is no result, or no such output.
    """
    result = load(dag_id, run_id, task_id, map_index)
    if output not in result.outputs:
        raise NotFound(f"task {task_id} has no output {output}", hint=f"it has: {', '.join(result.outputs) or 'none'}")
    return ArtifactStore(Installation.load().store).fetch(result.outputs[output])
