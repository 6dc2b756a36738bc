"""What the ``wait`` tasks of a local run took is settled with the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from edgewright.artifacts import ArtifactStore
from edgewright.spec.pipeline import Pipeline
from edgewright.streams.waits import settle_run


@contextlib.contextmanager
def waiting(pipeline: Pipeline, store: ArtifactStore, run_id: str, all_done: Callable[[], bool]) -> Iterator[None]:
    """Say at the end of a run what became of the batches that its tasks waited for, also after Ctrl-C.

    Args:
        pipeline: The pipeline.
        store: Where batches are kept.
        run_id: The run.
        all_done: Returns whether the run ended well, as a whole.
    """
    if not any(task.uses == "wait" for task in pipeline.tasks):
        yield
        return
    success = False
    try:
        yield
        success = all_done()
    finally:
        settle_run(store, pipeline.dag_id, run_id, success=success)
