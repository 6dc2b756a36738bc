"""MLflow runs of training tasks: one run a try, found again by the task's identity, closed whatever happens.

Without a tracking address nothing is tracked. A server that does not answer is found out within ten seconds (MLflow's
own client would try for minutes). Live metrics travel in batches: each call costs the server 10 ms.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from edgewright.artifacts.locks import Lease
from edgewright.artifacts.store import ArtifactStore
from edgewright.errors import ConfigError, EdgewrightError, Unavailable

log = logging.getLogger("edgewright.steps")

IDENTITY = "edgewright.identity"
ANSWER_SECONDS = 8.0
_BATCH = 200
_FLUSH_SECONDS = 2.0
_LONGEST_PARAM = 5000
_BAD_NAME = re.compile(r"[^\w\-. :/]")
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextlib.contextmanager
def mlflow_errors(uri: str, action: str) -> Iterator[None]:
    """Turn MLflow's errors into ours.

    Raises:
        Unavailable: the server, or its database, does not answer.
        ConfigError: MLflow refuses what was asked.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except EdgewrightError:
        raise
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED"):
            raise ConfigError(f"MLflow refuses to {action}: {error.message}", where=_shown(uri)) from error
        raise Unavailable(
            f"MLflow cannot {action}: {_first_line(error)}",
            where=_shown(uri),
            hint="see whether the tracking server is up, then run the task again",
        ) from error
    except OSError as error:
        raise Unavailable(f"MLflow cannot {action}: {error}", where=_shown(uri)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _shown(uri: str) -> str:
    """Return an address without a password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


def connect(uri: str, store: ArtifactStore | None = None) -> Any:
    """Return a client of a tracking server or database that answers.

    Args:
        uri: ``http(s)://...`` or ``sqlite:///...``.
        store: Where a lock is taken while a new database gets its tables.

    Raises:
        Unavailable: it does not answer within ten seconds.
    """
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    if uri.startswith("http"):
        _ask_health(uri)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    with mlflow_errors(uri, "be reached"), _first_use(uri, store):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def _first_use(uri: str, store: ArtifactStore | None) -> Iterator[None]:
    """Let one process alone create the tables of a new SQLite database; two at once break each other's."""
    file = _database(uri)
    if file is None or store is None or file.exists():
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with Lease(store, "mlflow-tables").hold(timeout=60):
        yield


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _ask_health(uri: str) -> None:
    parts = urlsplit(uri)
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/health"
    try:
        with urlopen(address, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 (http and https only, see connect)
            answer.read(1)
    except HTTPError:
        return  # it answers; what it thinks of the request shows in the next call
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"MLflow does not answer: {reason}",
            where=_shown(uri),
            hint="start the tracking server (edgewright up does), then run the task again",
        ) from error


class TrackedRun:
    """One MLflow run under way. Use :func:`track` to open and close it.

    Attributes:
        run_id: MLflow's identifier; empty where nothing is tracked.
        experiment_id: MLflow's identifier of the experiment.
    """

    def __init__(self, client: Any, uri: str, run_id: str, experiment_id: str) -> None:
        self._client = client
        self._uri = uri
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
        if self._client is None:
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
        if self._client is None:
            return
        from mlflow.entities import Metric

        with mlflow_errors(self._uri, "take metrics"):
            while self._waiting:
                batch = self._waiting[:1000]
                self._client.log_batch(self.run_id, metrics=[Metric(*item) for item in batch])
                del self._waiting[: len(batch)]

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; long values are cut."""
        if self._client is None or not params:
            return
        from mlflow.entities import Param

        entries = [Param(_BAD_NAME.sub("_", name), str(value)[:_LONGEST_PARAM]) for name, value in params.items()]
        with mlflow_errors(self._uri, "take params"):
            for start in range(0, len(entries), 100):
                self._client.log_batch(self.run_id, params=entries[start : start + 100])

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final metrics; what is no finite number is left out."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self._waiting.append((_BAD_NAME.sub("_", name), value, int(time.time() * 1000), 0))
        self.flush()

    def log_folder(self, folder: Path, place: str) -> None:
        """Copy a folder's files to the run's artifacts."""
        if self._client is not None:
            with mlflow_errors(self._uri, "take artifacts"):
                self._client.log_artifacts(self.run_id, str(folder), place)

    def log_file(self, file: Path, place: str) -> None:
        """Copy a file to the run's artifacts."""
        if self._client is not None:
            with mlflow_errors(self._uri, "take artifacts"):
                self._client.log_artifact(self.run_id, str(file), place)

    def finish(self, status: str) -> None:
        """Close the run as ``FINISHED`` or ``FAILED``."""
        if self._client is not None:
            with mlflow_errors(self._uri, "close the run"):
                self._client.set_terminated(self.run_id, status=status)


@contextlib.contextmanager
def track(
    uri: str, *, experiment: str, identity: str, name: str, tags: Mapping[str, str], store: ArtifactStore
) -> Iterator[TrackedRun]:
    """Open a run, and close it as finished, or as failed when an exception passes.

    A run of the same task that is still open belongs to a worker that was killed: it is closed as failed first.

    Args:
        uri: MLflow's address; empty for no tracking.
        experiment: Name of the experiment, created where it does not exist.
        identity: Which task of which run this is; the same for every try.
        name: Name of the run for people.
        tags: Lineage.
        store: For the lock under which a new database gets its tables.

    Raises:
        Unavailable: MLflow does not answer.
    """
    if not uri:
        yield TrackedRun(None, "", "", "")
        return
    client = connect(uri, store)
    with mlflow_errors(uri, "open a run"):
        experiment_id = _experiment(client, uri, experiment)
        _close_abandoned(client, experiment_id, identity)
        created = client.create_run(experiment_id, run_name=name, tags={**tags, IDENTITY: identity})
    run = TrackedRun(client, uri, created.info.run_id, experiment_id)
    try:
        yield run
        run.flush()
        run.finish("FINISHED")
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one that counts
            run.finish("FAILED")
        raise


def _experiment(client: Any, uri: str, name: str) -> str:
    """Return an experiment's identifier; create it, or bring it back, where needed."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        file = _database(uri)
        # without an address of its own, a database without a server would put artifacts below the working directory
        place = None if file is None else (file.parent / "mlflow-artifacts" / re.sub(r"[^\w.-]", "_", name)).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
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


def add_to_run(
    uri: str, run_id: str, metrics: Mapping[str, float], files: Mapping[Path, str], store: ArtifactStore
) -> str:
    """Add metrics and files to the run that trained a model; return a note, empty when all went well.

    Raises:
        Unavailable: MLflow does not answer.
    """
    client = connect(uri, store)
    if not _exists(client, uri, run_id):
        return f"MLflow has no run {run_id} any more, so nothing was added to it"
    run = TrackedRun(client, uri, run_id, "")
    run.log_metrics(metrics)
    for file, place in files.items():
        run.log_file(file, place)
    return ""


def _exists(client: Any, uri: str, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    def ask() -> bool:
        try:
            return bool(client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    return _within(uri, "find a run", ask)


def _within(uri: str, action: str, call: Callable[[], bool]) -> bool:
    with mlflow_errors(uri, action):
        return call()
