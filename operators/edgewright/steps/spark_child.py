"""The driver: ``python -m edgewright.steps.spark_child FOLDER``, in Spark's own environment.

The folder holds ``request.json``; the answer is written there as ``answer.json``, and each part's rows go to the folder
that the request names. Only PySpark, the standard library and light modules of ours are imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError, Unavailable, UserCodeError
from edgewright.steps.arguments import check_shares
from edgewright.steps.code import importable, load_entry
from edgewright.steps.spark_faults import fault_of

_PROGRESS = "edgewright-spark "
_EXECUTOR_SECONDS = 60.0
_PLAIN = {
    "tinyint", "smallint", "int", "bigint", "float", "double", "string", "boolean", "date", "timestamp",
    "timestamp_ntz", "void",
}  # fmt: skip


def main(folder: Path) -> None:
    """Answer the request of a folder."""
    _end_with_parent()
    request = json.loads((folder / "request.json").read_bytes())
    try:
        answer = _answer(request, folder)
    except EdgewrightError as error:
        answer = {"fault": {"type": type(error).__name__, "message": error.message, "where": error.where,
                            "hint": error.hint}}  # fmt: skip
    temporary = folder / "answer.tmp"
    temporary.write_text(json.dumps(answer))
    temporary.rename(folder / "answer.json")


def _end_with_parent() -> None:
    """End when the step's process is killed; the JVM then loses its standard input and ends, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))
        if os.getppid() == 1:
            sys.exit(143)


def _answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    import pyspark

    source = Path(request["source"]) if request["source"] else None
    entry = request["entry"] or request["fit"] or "sql"
    path = importable(source) if source else contextlib.nullcontext()
    with path, _faults(entry, source), _session(request) as spark:
        # not before: @udf with a type in words asks the session
        apply = None if request["sql"] else _functions(request, Path(str(source)))
        if source is not None:
            _ship(spark, source, folder)
        frames = {part: spark.read.parquet(f"file://{file}") for part, file in request["parts"].items()}
        state, made = (None, _query(spark, frames, request)) if apply is None else apply(frames)
        rows = {part: _write(frame, f"file://{request['out']}/{part}", entry) for part, frame in made}
    return {"state": state, "rows": rows, "version": pyspark.__version__}


@contextlib.contextmanager
def _faults(entry: str, source: Path | None) -> Iterator[None]:
    try:
        yield
    except EdgewrightError:
        raise
    except SystemExit as error:
        raise UserCodeError(f"{entry} called sys.exit({error.code!r})", hint="return the frame, or raise") from error
    except Exception as error:
        raise fault_of(error, entry, source) from error


# -- session -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _session(request: dict[str, Any]) -> Iterator[Any]:
    from pyspark.sql import SparkSession

    with _alone(request["ivy"]):
        spark = SparkSession.builder.getOrCreate()
    ended = threading.Event()
    try:
        if request["cluster"]:
            _await_worker(spark)
        threading.Thread(target=_watch, args=(spark.sparkContext, ended), daemon=True).start()
        yield spark
    finally:
        ended.set()
        with contextlib.suppress(Exception):
            spark.stop()


@contextlib.contextmanager
def _alone(folder: str | None) -> Iterator[None]:
    """Let one process at a time fetch packages: their cache bears no two."""
    if folder is None:
        yield
        return
    import fcntl

    with Path(folder, ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _await_worker(spark: Any) -> None:
    """Wait until the cluster has given the application a worker; Spark itself would wait for ever."""
    deadline = time.monotonic() + _EXECUTOR_SECONDS
    while spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() <= 1:  # the driver counts as one
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the cluster gave no worker within {_EXECUTOR_SECONDS:.0f} s",
                hint="are workers registered and free, do they have spark.executor.memory (1g by default), run they "
                "the same Spark, and do they reach this machine (conf: {spark.driver.host: ...})?",
            )
        time.sleep(0.2)


def _watch(context: Any, ended: threading.Event) -> None:
    """Print what the running stages have done, once a second."""
    tracker = context.statusTracker()
    while not ended.wait(1.0):
        with contextlib.suppress(Exception):
            for stage in tracker.getActiveStageIds():
                info = tracker.getStageInfo(stage)
                if info is not None and info.numTasks:
                    print(f"{_PROGRESS}{stage} {info.numCompletedTasks} {info.numTasks}", flush=True)


def _ship(spark: Any, source: Path, folder: Path) -> None:
    """Give the workers the modules of the pipeline's folder, which functions on rows refer to."""
    modules = folder / "modules"
    for file in sorted(source.rglob("*.py")):
        place = modules / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    spark.sparkContext.addPyFile(shutil.make_archive(str(folder / "edgewright_code"), "zip", modules))


# -- functions and queries ---------------------------------------------------------------------------------------------

_Made = Iterator[tuple[str, Any]]


def _functions(request: dict[str, Any], source: Path) -> Callable[[dict[str, Any]], tuple[Any, _Made]]:
    """Load the functions and check their arguments."""
    fit = load_entry(source, request["fit"]) if request["fit"] else None
    entry = load_entry(source, request["entry"]) if request["entry"] else None
    found = [(function, skip) for function, skip in ((fit, 1), (entry, 2 if fit else 1)) if function is not None]
    shares = check_shares([f for f, _ in found], [skip for _, skip in found], request["args"], source)

    def apply(frames: dict[str, Any]) -> tuple[Any, _Made]:
        if fit is None:
            assert entry is not None
            return None, ((part, _call(entry, frame, **shares[0])) for part, frame in frames.items())
        state = _json(_call(fit, frames["train"], **shares[0]), request["fit"])
        assert entry is not None, "the configuration demands one"
        return state, ((part, _call(entry, frame, state, **shares[1])) for part, frame in frames.items())

    return apply


def _call(function: Callable[..., Any], *values: Any, **args: Any) -> Any:
    """Call a function of the user's with the same random numbers each time."""
    import numpy as np

    random.seed(0)
    np.random.seed(0)
    return function(*values, **args)


def _json(state: Any, fit: str) -> Any:
    """Return a state as JSON gives it back: what a task of another day, or another program, can read."""
    if state is None:
        raise UserCodeError(f"{fit} returned nothing", hint="return what it found, such as a dict of numbers")
    try:
        return json.loads(json.dumps(state, allow_nan=False, default=lambda value: value.item()))
    except (TypeError, ValueError, AttributeError) as error:
        raise UserCodeError(
            f"{fit} returned a {type(state).__name__} that JSON cannot say: {error}",
            hint="on Spark a state is numbers, texts, lists and dicts; collect() what was found",
        ) from error


def _query(spark: Any, frames: dict[str, Any], request: dict[str, Any]) -> _Made:
    frames["train"].createOrReplaceTempView("train")
    for part, frame in frames.items():
        frame.createOrReplaceTempView("data")
        yield part, spark.sql(request["sql"], args=request["args"] or None)


# -- rows --------------------------------------------------------------------------------------------------------------


def _write(frame: Any, place: str, entry: str) -> int:
    """Write a frame; return its number of rows.

    Rows keep their order where Spark has one. Behind a shuffle it has none: the rows are then sorted by all columns, so
    that the same data give the same bytes.
    """
    from pyspark.sql import DataFrame, Observation
    from pyspark.sql import functions as F  # noqa: N812 - the field's own name

    if not isinstance(frame, DataFrame):
        what = "nothing" if frame is None else f"a {type(frame).__module__.partition('.')[0]} {type(frame).__name__}"
        raise UserCodeError(f"{entry} returned {what}, not a Spark DataFrame", hint="return the frame with its label")
    _check_columns(frame, entry)
    execution = frame._jdf.queryExecution()
    shuffled = re.search(r"\bExchange\b", execution.executedPlan().toString())
    if shuffled and execution.optimizedPlan().getClass().getSimpleName() != "Sort":
        frame = frame.orderBy(*(F.col("`" + name.replace("`", "``") + "`") for name in frame.columns))
    counted = Observation()
    frame.observe(counted, F.count(F.lit(1)).alias("rows")).write.parquet(place)
    return int(counted.get["rows"])


def _check_columns(frame: Any, entry: str) -> None:
    twice = sorted({name for name in frame.columns if frame.columns.count(name) > 1})
    if twice:
        raise UserCodeError(f"{entry} returned columns twice: {', '.join(twice)}", hint="rename or drop one of them")
    for name, kind in frame.dtypes:
        if kind not in _PLAIN and not kind.startswith(("decimal", "varchar", "char")):
            raise UserCodeError(
                f"{entry} returned a column {name} of type {kind}, which cannot be in a dataset",
                hint="columns hold whole numbers, numbers, texts, true and false, times or dates",
            )


if __name__ == "__main__":
    os.umask(0o077)
    main(Path(sys.argv[1]))
