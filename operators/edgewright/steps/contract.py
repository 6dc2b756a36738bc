"""The contract of a step: a request goes in, a result comes out. Both are small JSON documents with a version.

Whoever runs a step (the local runner, an Airflow worker, a container, a person) writes a :class:`StepRequest` and reads
a :class:`StepResult`; nobody needs to know more. Data never travel in them, only references to artifacts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from edgewright.artifacts.refs import ArtifactRef
from edgewright.errors import ErrorRecord, GateResult

#: Exit code of a node that waited in vain for the others: nothing was trained, nothing is said about the step.
ALONE = 75


class Terminated(BaseException):
    """The machine wants its place back: the step ends without a result, and may be asked again."""


class Identity(BaseModel):
    """Which task of which run this is. The place of the result follows from it, so a retry finds what was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1

    @property
    def key(self) -> str:
        """Key of this task's folder in the artifact store (the try does not matter)."""
        # no id of a task may hold an @, so an instance is never taken for another task
        task = self.task_id if self.map_index < 0 else f"{self.task_id}@{self.map_index}"
        return "/".join(("runs", *map(_folder_name, (self.dag_id, self.run_id, task))))


def _folder_name(part: str) -> str:
    """Return a name as one folder; Airflow allows a run called ``..``, which must not lead out of its Dag's folder."""
    return quote(part, safe="+:=@,") if part.strip(".") else part.replace(".", "%2E")


class Source(BaseModel):
    """The user's code that belongs to the run.

    Attributes:
        folder: The pipeline's folder on this machine.
        document: Name of the pipeline's file in it.
        pipeline_digest: sha256 of the pipeline's text.
        commit: Git commit of the folder, if it is in a repository.
        dirty: Whether the folder differs from that commit.
        code: Snapshot of the folder, where the step runs on another machine.
    """

    model_config = ConfigDict(extra="forbid")

    folder: str
    document: str = "pipeline.yaml"
    pipeline_digest: str = ""
    commit: str | None = None
    dirty: bool | None = None
    code: ArtifactRef | None = None


class StepRequest(BaseModel):
    """Everything that one step needs in order to run anywhere.

    Attributes:
        version: Version of this contract.
        step: Short name of the step.
        config: Its ``with:``, rendered; inputs are artifact references.
        identity: Which task of which run.
        source: The user's code; ``None`` for steps that were called without a pipeline.
        store: Root of the artifact store.
        tracking_uri: MLflow; empty where there is none.
        params: The run's params, for the record.
        data_time: ISO time that says how new the run's data are (end of the data interval, or the run's start).
        registered_model: Name that the pipeline publishes under, if it does.
        cache: ``use`` results of earlier runs, ``refresh`` them, or leave the cache ``off``.
        image: Digest of the container image, where there is one.
        batch: Key of the document in the store that says which batches of events started the run.
        shared: Folder in which a command in somebody else's image has done its part already.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    step: str
    config: dict[str, Any] = Field(default_factory=dict)
    identity: Identity
    source: Source | None = None
    store: str
    tracking_uri: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    data_time: str | None = None
    registered_model: str | None = None
    cache: Literal["use", "refresh", "off"] = "use"
    image: str | None = None
    batch: str | None = None
    shared: str | None = None


class CacheInfo(BaseModel):
    """How the cache answered.

    Attributes:
        key: The cache key; ``None`` where the step cannot be cached.
        hit: Whether an earlier result was reused.
        reused_from: Which task of which run made it.
        reason: Why it was not reused, in words.
    """

    key: str | None = None
    hit: bool = False
    reused_from: Identity | None = None
    reason: str = ""


class Gate(BaseModel):
    """Verdict of one gate, as :class:`~edgewright.errors.GateResult` has it."""

    metric: str
    operator: str
    limit: float
    value: float | None
    passed: bool
    note: str = ""


class StepError(BaseModel):
    """Why a step failed or was skipped, as :class:`~edgewright.errors.ErrorRecord` has it."""

    type: str
    message: str
    user_fault: bool
    retriable: bool
    details: dict[str, Any] = Field(default_factory=dict)


class StepResult(BaseModel):
    """What a step made.

    Attributes:
        version: Version of this contract.
        step: Short name of the step.
        identity: Which task of which run.
        state: How it ended.
        outputs: Artifacts by name.
        metrics: Numbers that it measured.
        tags: Short texts (registered version, MLflow run id, ...).
        gates: Every gate's verdict.
        notes: Sentences for the log and the summary.
        error: Why it failed or was skipped.
        cache: How the cache answered.
        started: ISO time.
        duration: Seconds.
    """

    version: Literal[1] = 1
    step: str
    identity: Identity
    state: Literal["success", "failed", "skipped"] = "success"
    outputs: dict[str, ArtifactRef] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    gates: list[Gate] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    error: StepError | None = None
    cache: CacheInfo = Field(default_factory=CacheInfo)
    started: str = ""
    duration: float = 0.0


@dataclass
class StepOutput:
    """What a step's ``run(config, context)`` returns; the runner makes the result from it.

    A failed gate is no exception here: return the verdicts with the report, and the runner fails the task after it has
    kept both.
    """

    outputs: dict[str, ArtifactRef] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gates: list[GateResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gate_model(result: GateResult) -> Gate:
    """Return a verdict as it is kept in the result document."""
    return Gate(**asdict(result))


def error_model(error: BaseException) -> StepError:
    """Return an error as it is kept in the result document."""
    return StepError(**asdict(ErrorRecord.of(error)))
