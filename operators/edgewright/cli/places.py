"""Where the steps of a run by hand are answered: here, or at the place that a task's profile names."""

from __future__ import annotations

from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, EdgewrightError
from edgewright.installation import Installation
from edgewright.places.choose import choose
from edgewright.spec.pipeline import Pipeline, Task
from edgewright.spec.profiles import LOCAL, Profile
from edgewright.steps.contract import Identity, Source, StepRequest, StepResult
from edgewright.steps.execute import execute


def answer(
    pipeline: Pipeline, task: Task, request: StepRequest, installation: Installation, store: ArtifactStore
) -> StepResult:
    """Answer a request at the place that its task names.

    Raises:
        ConfigError: the profile cannot be honoured.
        EdgewrightError: as the step raised it.
    """
    place = _place(pipeline, task, request, installation)
    if place == LOCAL:
        return execute(request, store=store)
    if place.on == "kubernetes":
        return _in_pod(place, request)
    from edgewright.places.child import Child
    from edgewright.places.containers import Container

    return (Container(place) if place.on == "docker" else Child(place)).run(request, store)


def check_places(pipeline: Pipeline, tasks: list[Task], installation: Installation, store: ArtifactStore) -> None:
    """Refuse before the run what cannot run here: handlers in other languages, profiles that nothing here honours.

    Raises:
        ConfigError: with the task and the reason.
    """
    for task in tasks:
        if task.is_handler:
            raise ConfigError(
                "run: is for an Airflow worker of another language, and edgewright run is none",
                where=f"tasks.{task.id}.run",
                hint="trigger the pipeline in Airflow, or leave the task out with --skip",
            )
        if task.profile in (None, "local") and task.preferred in (None, "local"):
            continue
        if not task.is_step:
            raise ConfigError("profiles are for steps", where=f"tasks.{task.id}.profile")
        identity = Identity(dag_id=pipeline.dag_id, run_id="before", task_id=task.id)
        request = StepRequest(
            step=str(task.uses),
            identity=identity,
            store=store.root,
            tracking_uri=installation.tracking_uri,
            config={key: task.config[key] for key in ("script",) if key in task.config},
            source=Source(folder=str(pipeline.file.parent.resolve())),
        )
        try:
            _place(pipeline, task, request, installation)
        except ConfigError as error:
            raise ConfigError(error.message, where=f"tasks.{task.id}.profile", hint=error.hint) from None


def _place(pipeline: Pipeline, task: Task, request: StepRequest, installation: Installation) -> Profile:
    if task.profile in (None, "local") and task.preferred in (None, "local"):
        return LOCAL
    return choose(task.profile, task.preferred, pipeline.profiles, installation, request)


class _Task:
    """What Airflow's operator of pods asks of ``ti``."""

    start_date = None

    def xcom_push(self, key: str, value: Any) -> None:
        """Drop names of pods: nobody pulls them here."""


def _in_pod(place: Profile, request: StepRequest) -> StepResult:
    from edgewright.cli.operators_here import operator_log, prepare_airflow

    prepare_airflow()
    from edgewright.operators.jobs import StepJob
    from edgewright.operators.pods import StepPod
    from edgewright.places.pods import BY_HAND

    pod = (StepJob if place.nodes > 1 else StepPod)(profile=place, request=request, deferrable=False, by=BY_HAND)
    context: Any = {"ti": _Task()}
    try:
        with operator_log():
            return pod.answer(context)
    except EdgewrightError:
        raise
    except BaseException:
        pod.on_kill()  # an interrupt must not leave it behind
        raise
