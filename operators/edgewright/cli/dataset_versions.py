"""Dataset versions of an installation's store: for ``edgewright data``, and for notebooks by the SDK."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgewright.artifacts import ArtifactRef, ArtifactStore, erasures
from edgewright.artifacts.retention import tombstones
from edgewright.cli.runs import list_task_runs, order
from edgewright.errors import ConfigError, NotFound
from edgewright.installation import Installation
from edgewright.spec.faults import near

if TYPE_CHECKING:
    import pandas as pd

    from edgewright.steps.data import Dataset

_SHORTEST_DIGEST = 8


@dataclass(frozen=True)
class DatasetVersion:
    """One immutable version of a dataset.

    Attributes:
        ref: Its artifact.
        dag_id: The pipeline that made it.
        run_id: The run that made it.
        task_id: The task that made it.
        made: ISO time.
        store: Where it is.
        erased: Day on which a person's rows were erased from it, and its bytes with them; empty where they were not.
        expired: Day on which it was removed because its ``retention:`` was over; empty where it was not.
    """

    ref: ArtifactRef
    dag_id: str
    run_id: str
    task_id: str
    made: str
    store: ArtifactStore = field(repr=False, compare=False)
    erased: str = ""
    expired: str = ""

    @property
    def sha256(self) -> str:
        """Its digest, which names the version."""
        return self.ref.sha256

    @property
    def label(self) -> str | None:
        """Name of the column that is to be predicted."""
        return self.open().label

    @property
    def features(self) -> list[str]:
        """Names of the other columns, in order."""
        return list(self.open().features)

    @property
    def parts(self) -> dict[str, int]:
        """Rows of each part: ``train``, ``test``, ``holdout``."""
        found = self.open()
        return {name: found.rows(name) for name in found.part_names}

    def open(self) -> Dataset:
        """Return it as the steps know it; its files are fetched and verified."""
        from edgewright.steps.data import Dataset

        return Dataset.open(self.store.fetch(self.ref))

    def frame(self, part: str = "train") -> pd.DataFrame:
        """Return all columns of a part.

        Raises:
            ConfigError: there is no such part.
        """
        found = self.open()
        if part not in found.part_names:
            raise ConfigError(f"no part {part}", where=str(self), hint=f"it has: {', '.join(found.part_names)}")
        return found.frame(part)

    def X(self, part: str = "train") -> pd.DataFrame:  # noqa: N802 - the field's own name for the features
        """Return the features of a part, a DataFrame ``[rows, features]``."""
        return self.frame(part)[self.features]

    def y(self, part: str = "train") -> pd.Series[Any]:
        """Return the label of a part, a Series ``[rows]``.

        Raises:
            ConfigError: the dataset has no label.
        """
        if self.label is None:
            raise ConfigError("the dataset has no label", where=str(self), hint="say label: in the ingest task")
        return self.frame(part)[self.label]

    def __str__(self) -> str:
        return f"{self.dag_id}/{self.task_id}@{self.sha256[:12]}"

    def _repr_html_(self) -> str:
        parts = ", ".join(f"{name} {rows:,}" for name, rows in self.parts.items())
        return f"<b>{html.escape(str(self))}</b><br>{html.escape(parts)} rows, made {html.escape(self.made)}"


def datasets(pipeline: str, task: str | None = None) -> list[DatasetVersion]:
    """Return the versions of a pipeline's datasets, the newest last, each digest once.

    Args:
        pipeline: The ``dag_id``.
        task: A task of it; all tasks that make datasets where it is left out.
    """
    store = ArtifactStore(Installation.load().store)
    found: dict[tuple[str, str], DatasetVersion] = {}
    gone, over = erasures.marks(store), tombstones(store)
    for run, result in order(store, list_task_runs(store, pipeline)):
        if result.get("state") != "success" or (task is not None and run.task_id != task):
            continue
        ref = result.get("outputs", {}).get("dataset")
        if ref is None:
            continue
        version = DatasetVersion(
            ArtifactRef.model_validate(ref), run.dag_id, run.run_id, run.task_id, result["started"], store,
            gone.get(ref["sha256"], {}).get("time", "")[:10], _expired(store, over.get(ref["sha256"]), ref["sha256"]),
        )  # fmt: skip
        found.pop((run.task_id, version.sha256), None)
        found[run.task_id, version.sha256] = version
    return list(found.values())


def _expired(store: ArtifactStore, tombstone: dict[str, Any] | None, digest: str) -> str:
    """Return the day on which a version went; empty where it is there, made anew perhaps."""
    if tombstone is None or store.find(digest, "dataset") is not None:
        return ""
    return str(tombstone.get("removed"))[:10]


def dataset(name: str) -> DatasetVersion:
    """Return one version of a dataset.

    Args:
        name: ``PIPELINE``, ``PIPELINE/TASK``, either with ``@DIGEST`` (at least eight characters of it) or ``@RUN``
            behind it. Without a task: the last of the pipeline's tasks that made one. Without a version: the newest.

    Raises:
        NotFound: there is none; says which there are.
    """
    whole, _, version = name.partition("@")
    pipeline, _, task = whole.partition("/")
    found = datasets(pipeline, task or None)
    if not found:
        raise _nothing(pipeline, task)
    if version:
        is_digest = len(version) >= _SHORTEST_DIGEST
        fitting = [one for one in found if version == one.run_id or (is_digest and one.sha256.startswith(version))]
        if not fitting:
            shown = ", ".join(f"@{one.sha256[:12]} (run {one.run_id})" for one in found[-5:])
            raise NotFound(f"no such version: {name}", hint=f"there are: {shown}")
        found = fitting
    there = [one for one in found if not one.erased and not one.expired]
    if not there and found[-1].expired:
        raise NotFound(f"removed on {found[-1].expired}, when its retention was over", where=str(found[-1]),
                       hint="run the task again for a new version")  # fmt: skip
    if not there:
        raise NotFound(f"erased on {found[-1].erased}: it held a person's rows", where=str(found[-1]),
                       hint=f"edgewright data show {pipeline} lists what there is")  # fmt: skip
    return there[-1]


def _nothing(pipeline: str, task: str) -> NotFound:
    store = ArtifactStore(Installation.load().store)
    runs = list_task_runs(store)
    pipelines = sorted({run.dag_id for run in runs})
    if pipeline not in pipelines:
        guess = near(pipeline, pipelines)
        hint = f'did you mean "{guess}"?' if guess else f"pipelines that ran here: {', '.join(pipelines) or 'none'}"
        return NotFound(f"no pipeline {pipeline} has run here", where=store.root, hint=hint)
    tasks = sorted({one.task_id for one in datasets(pipeline)})
    return NotFound(
        f"no task {task} of {pipeline} made a dataset" if task else f"no run of {pipeline} made a dataset",
        hint=f"tasks that did: {', '.join(tasks) or 'none'}",
    )
