"""``edgewright run --batch``: a file of messages does what a batch of events does in Airflow."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, DataError
from edgewright.spec.pipeline import Pipeline, Task
from edgewright.streams.batches import REMOVED, Batch, BatchLog
from edgewright.streams.takes import settle

#: Under which source batches of files are kept.
SOURCE = "files"


def claim_file(store: ArtifactStore, pipeline: Pipeline, run_id: str, address: str) -> str:
    """Make a batch of a file for a run, and return the key that the run's steps get.

    The same contents are one batch: in a dataset that grows they count once, however often the command is said.

    Args:
        store: Where batches are kept.
        pipeline: The pipeline.
        run_id: The run.
        address: A file with one JSON object a line, by path or by an address that fsspec knows.

    Raises:
        DataError: the file cannot be read, or a line holds no object.
        ConfigError: no task of the pipeline would take the batch.
    """
    if not any(map(_takes_batches, pipeline.tasks)):
        raise ConfigError(f"no task of {pipeline.dag_id} takes a batch", where="--batch",
                          hint="ingest with on_event: replace or append, or CassandraSinkOperator")  # fmt: skip
    data, messages = _lines(address)
    sha256 = hashlib.sha256(data).hexdigest()
    log = BatchLog(store, pipeline.dag_id, SOURCE)
    known = f"{log.prefix}/names/{sha256}.json"
    number = (store.read_json(known) or {}).get("number")
    if number is None:
        number = _append(log, address, data, messages, sha256)
        store.write_json(known, {"number": number})
    else:
        if log.is_removed(int(number)) and (known_batch := log.read(int(number))) is not None:
            store.write_bytes(known_batch.data, data)  # edgewright gc has removed it, and here it is again
            log.unmark(REMOVED, int(number))
        log.release(int(number), force=True)
    log.mark("dispatched", int(number), {"run_id": run_id})
    return log.write_claim(run_id, [int(number)])


def settle_file(store: ArtifactStore, dag_id: str, run_id: str, claim: str, *, success: bool) -> None:
    """Say how the run of a batch has ended."""
    settle(store, dag_id, run_id, claim, success=success, outcome={})


def _takes_batches(task: Task) -> bool:
    if task.uses == "ingest":
        return bool(task.config.get("on_event", "ignore") != "ignore")
    return str(task.uses).endswith(".CassandraSinkOperator") and not task.config.get("source")


def _append(log: BatchLog, address: str, data: bytes, messages: int, sha256: str) -> int:
    name = f"{PurePosixPath(address).stem[:60]}-{sha256[:12]}"
    key, _ = log.write_data(name, data)
    while True:
        log.head()
        made = log.append(Batch(0, name, "file", key, messages, size=len(data), sha256=sha256))
        if made is not None:
            return made.number


def _lines(address: str) -> tuple[bytes, int]:
    import fsspec
    import msgspec

    lines: list[bytes] = []
    try:
        with fsspec.open(address, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                value = msgspec.json.decode(line)
                if not isinstance(value, dict):
                    raise DataError("this is no object", where=f"{address}:{number}", hint="one JSON object a line")
                lines.append(msgspec.json.encode({"offset": len(lines), "value": value}) + b"\n")
    except msgspec.DecodeError as error:
        raise DataError(
            f"this is no JSON: {error}", where=f"{address}:{number}", hint="one JSON object a line"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=address) from error
    if not lines:
        raise DataError("the file is empty", where=address)
    return b"".join(lines), len(lines)
