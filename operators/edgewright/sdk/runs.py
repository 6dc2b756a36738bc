"""Tracked runs of a notebook: params, live metrics and the model, as a pipeline's train task keeps them."""

from __future__ import annotations

import contextlib
import datetime
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.installation import Installation
from edgewright.steps.contract import Identity, Source, StepRequest

if TYPE_CHECKING:
    from edgewright.cli.dataset_versions import DatasetVersion
    from edgewright.steps.tracking import TrackedRun


@dataclass(frozen=True)
class KeptModel:
    """A model in the artifact store.

    Attributes:
        ref: Its artifact; what ``{$x: task}`` stands for in a pipeline.
        metrics: What was measured on the rows that it was trained on.
        identity: The run that it belongs to.
        data: The dataset that it was trained on.
    """

    ref: ArtifactRef
    metrics: dict[str, float]
    identity: Identity
    data: DatasetVersion

    @property
    def sha256(self) -> str:
        """Its digest."""
        return self.ref.sha256


class Run:
    """One tracked run under way; :func:`start_run` opens it.

    Attributes:
        identity: Under which name the store keeps what it makes.
        mlflow_run_id: MLflow's identifier.
    """

    def __init__(self, identity: Identity, tracked: TrackedRun) -> None:
        self.identity = identity
        self.mlflow_run_id = tracked.run_id
        self._tracked = tracked
        self._count = 0

    def log_params(self, **params: Any) -> None:
        """Keep parameters with the run."""
        self._tracked.log_params(params)

    def log_metric(self, name: str, value: float, step: int | None = None) -> None:
        """Keep one value of a metric, such as the loss of an epoch."""
        self._tracked.log_metric(name, float(value), step)

    def keep(self, model: Any, data: DatasetVersion, *, problem: str = "auto") -> KeptModel:
        """Check a fitted model, measure it on the part ``train``, and put it into the artifact store.

        Args:
            model: A scikit-learn estimator, a PyTorch module, an ONNX model, or the path of one.
            data: What it was trained on.
            problem: ``classification``, ``regression``, or ``auto`` by the label's type.

        Raises:
            UserCodeError: it is no model that a pipeline could keep; says why.
        """
        from edgewright.sdk.keeping import keep

        self._count += 1
        identity = self.identity.model_copy(update={"task_id": f"model-{self._count}"})
        ref, measured = keep(model, data, problem, identity, self._tracked)
        return KeptModel(ref, measured, identity, data)


@contextlib.contextmanager
def start_run(
    pipeline: str, name: str | None = None, params: Mapping[str, Any] | None = None, experiment: str | None = None
) -> Iterator[Run]:
    """Open a tracked run in the installation's MLflow; it ends as finished, or as failed when an exception passes.

    Args:
        pipeline: The ``dag_id`` that the work belongs to.
        name: For people. Default: the time.
        params: Kept with the run.
        experiment: MLflow experiment. Default: the pipeline's.

    Raises:
        Unavailable: MLflow does not answer.
    """
    from edgewright.steps.tracking import track

    now = datetime.datetime.now(datetime.UTC)
    run_id = f"notebook__{now:%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(3)}"
    identity = Identity(dag_id=pipeline, run_id=run_id, task_id="notebook")
    tags = {"edgewright.dag_id": pipeline, "edgewright.run_id": run_id, "mlflow.source.type": "NOTEBOOK"}
    uri = Installation.load().tracking_uri
    title = name or f"notebook {now:%Y-%m-%d %H:%M}"
    with track(uri, experiment=experiment or pipeline, identity=identity.key, name=title, tags=tags) as tracked:
        if params:
            tracked.log_params(params)
        yield Run(identity, tracked)


def request_of(step: str, config: dict[str, Any], identity: Identity, source: Source | None = None) -> StepRequest:
    """Return a request of a step as this installation answers it."""
    here = Installation.load()
    return StepRequest(
        step=step, config=config, identity=identity, source=source, store=ArtifactStore(here.store).root,
        tracking_uri=here.tracking_uri, cache="off",
    )  # fmt: skip
