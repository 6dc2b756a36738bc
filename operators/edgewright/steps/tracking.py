"""MLflow runs of training tasks: one run a try, found again by the task's identity, closed whatever happens.

Without a tracking address nothing is tracked. A server that does not answer is found out within ten seconds (MLflow's
own client would try for minutes). Live metrics travel in batches: each call costs the server 10 ms.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgewright.errors import NotFound, Unavailable
from edgewright.registry.connection import Connection, error_code

log = logging.getLogger("edgewright.steps")

IDENTITY = "edgewright.identity"
_BATCH = 200
_FLUSH_SECONDS = 2.0
_LONGEST_PARAM = 5000
_BAD_NAME = re.compile(r"[^\w\-. :/]")


class TrackedRun:
    """One MLflow run under way. Use :func:`track` to open and close it.

    Attributes:
        run_id: MLflow's identifier; empty where nothing is tracked.
        experiment_id: MLflow's identifier of the experiment.
    """

    def __init__(self, connection: Connection | None, run_id: str, experiment_id: str) -> None:
        self._connection = connection
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._waiting: list[tuple[str, float, int, int]] = []
        self._steps: dict[str, int] = {}
        self._flushed_at = time.monotonic()
        self._logged_at = 0.0

    def log_metric(self, name: str, value: float, step: int | None = None) -> None:
        """Take a live metric; it is sent with others, and logged at most once a second."""
        step = self._steps.get(name, -1) + 1 if step is None else int(step)
        self._steps[name] = step
        now = time.monotonic()
        if now - self._logged_at >= 1.0:
            self._logged_at = now
            log.info("progress: %s[%d] = %.6g", name, step, value)
        if self._connection is None:
            return
        self._waiting.append((_BAD_NAME.sub("_", name), value, int(time.time() * 1000), step))
        if len(self._waiting) >= _BATCH or now - self._flushed_at >= _FLUSH_SECONDS:
            self._try_to_flush()

    def _try_to_flush(self) -> None:
        """Send what waits; a server that is away for a moment must not end a long training."""
        self._flushed_at = time.monotonic()
        try:
            self.flush()
        except Unavailable as error:
            log.warning("live metrics wait: %s", error.message)

    def flush(self) -> None:
        """Send all metrics that wait.

        Raises:
            Unavailable: MLflow does not answer; they stay.
        """
        if self._connection is None:
            return
        from mlflow.entities import Metric

        with self._connection.calls("take metrics") as client:
            while self._waiting:
                batch = self._waiting[:1000]
                client.log_batch(self.run_id, metrics=[Metric(*item) for item in batch])
                del self._waiting[: len(batch)]

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; long values are cut."""
        if self._connection is None or not params:
            return
        from mlflow.entities import Param

        entries = [Param(_BAD_NAME.sub("_", name), str(value)[:_LONGEST_PARAM]) for name, value in params.items()]
        with self._connection.calls("take params") as client:
            for start in range(0, len(entries), 100):
                client.log_batch(self.run_id, params=entries[start : start + 100])

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final metrics; what is no finite number is left out."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self._waiting.append((_BAD_NAME.sub("_", name), value, int(time.time() * 1000), 0))
        self.flush()

    def log_folder(self, folder: Path, place: str) -> None:
        """Copy a folder's files to the run's artifacts."""
        if self._connection is not None:
            with self._connection.calls("take artifacts") as client:
                client.log_artifacts(self.run_id, str(folder), place)

    def log_file(self, file: Path, place: str) -> None:
        """Copy a file to the run's artifacts."""
        if self._connection is not None:
            with self._connection.calls("take artifacts") as client:
                client.log_artifact(self.run_id, str(file), place)

    def finish(self, status: str) -> None:
        """Close the run as ``FINISHED`` or ``FAILED``."""
        if self._connection is not None:
            # MLflow prints the run's address, which the task shows as a link of its own
            with self._connection.calls("close the run") as client, contextlib.redirect_stdout(io.StringIO()):
                client.set_terminated(self.run_id, status=status)


@contextlib.contextmanager
def track(uri: str, *, experiment: str, identity: str, name: str, tags: Mapping[str, str]) -> Iterator[TrackedRun]:
    """Open a run, and close it as finished, or as failed when an exception passes.

    A run of the same task that is still open belongs to a worker that was killed: it is closed as failed first.

    Args:
        uri: MLflow's address; empty for no tracking.
        experiment: Name of the experiment, created where it does not exist.
        identity: Which task of which run this is; the same for every try.
        name: Name of the run for people.
        tags: Lineage.

    Raises:
        Unavailable: MLflow does not answer.
    """
    if not uri:
        yield TrackedRun(None, "", "")
        return
    connection = Connection(uri)
    with connection.calls("open a run") as client:
        experiment_id = experiment_of(client, connection, experiment)
        _close_abandoned(client, experiment_id, identity)
        created = client.create_run(experiment_id, run_name=name, tags={**tags, IDENTITY: identity})
    run = TrackedRun(connection, created.info.run_id, experiment_id)
    try:
        yield run
        run.flush()
        run.finish("FINISHED")
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one that counts
            run.finish("FAILED")
        raise


def experiment_of(client: Any, connection: Connection, name: str) -> str:
    """Return an experiment's identifier; create it, or bring it back, where needed."""
    found = client.get_experiment_by_name(name)
    if found is None:
        file = connection.database
        # without an address of its own, a database without a server would put artifacts below the working directory
        place = None if file is None else (file.parent / "mlflow-artifacts" / re.sub(r"[^\w.-]", "_", name)).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except Exception as error:  # MLflow's own class is heavy to import
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # somebody else was first
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _close_abandoned(client: Any, experiment_id: str, identity: str) -> None:
    query = f"tags.`{IDENTITY}` = '{identity}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], filter_string=query):
        log.info("closing MLflow run %s, which an earlier try of this task left open", run.info.run_id)
        client.set_terminated(run.info.run_id, status="FAILED")


def add_to_run(uri: str, run_id: str, metrics: Mapping[str, float], files: Mapping[Path, str]) -> str:
    """Add metrics and files to the run that trained a model; return a note, empty when all went well.

    Raises:
        Unavailable: MLflow does not answer.
    """
    connection = Connection(uri)
    try:
        with connection.calls("find the run") as client:
            if client.get_run(run_id).info.lifecycle_stage != "active":
                return f"MLflow's run {run_id} was deleted, so nothing was added to it"
    except NotFound:
        return f"MLflow has no run {run_id} any more, so nothing was added to it"
    run = TrackedRun(connection, run_id, "")
    run.log_metrics(metrics)
    for file, place in files.items():
        run.log_file(file, place)
    return ""
