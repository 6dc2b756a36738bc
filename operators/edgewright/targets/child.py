"""What runs in a target's own environment: ``python -m edgewright.targets.child FOLDER``.

The folder holds ``request.json`` and its arrays; the answer is written there as ``answer.json``, beside the files that
were compiled and the scores of the rows to be proven. Only the standard library, numpy and the target's own libraries
are imported.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError, UserFault
from edgewright.targets.base import Compiled, Job
from edgewright.targets.timing import Latency, time_calls

OUT = "out"


def main(folder: Path) -> None:
    """Answer the request of a folder."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    limit = int(request["memory_gib"] * 2**30)
    # the data segment, not the address space: compilers reserve far more addresses than they use
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    # for the case that whoever started this is killed; the parent's own limit comes first
    signal.alarm(int(request["seconds"]) + 60)
    try:
        answer = _answer(request, folder)
    except MemoryError:
        answer = {"fault": {"message": f"it needs more than {request['memory_gib']:g} GiB", "user": True}}
    except EdgewrightError as error:
        user = isinstance(error, UserFault)
        answer = {"fault": {"message": error.message, "hint": error.hint, "where": error.where, "user": user}}
    temporary = folder / "answer.tmp"
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.rename(folder / "answer.json")


def _answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    import numpy as np

    started = time.perf_counter()
    module = importlib.import_module(request["module"])
    with np.load(folder / "calibration.npz") as arrays:
        calibration = dict(arrays)
    scratch = folder / "scratch"
    scratch.mkdir()
    job = Job((folder / "model.onnx").read_bytes(), calibration, request["options"], scratch, Path(request["kept"]))
    compiled: Compiled = module.compile_model(job)
    seconds = time.perf_counter() - started
    _write(folder / OUT, request["file"], compiled)
    answer: dict[str, Any] = {
        "details": compiled.details,
        "notes": list(compiled.notes),
        "tools": dict(compiled.tools),
        "unverified": compiled.unverified,
        "seconds": seconds,
    }
    if request["prove"] and not compiled.unverified:
        with np.load(folder / "rows.npz") as arrays:
            rows = dict(arrays)
        call = module.open_model(folder / OUT, job)
        np.save(folder / "scores.npy", np.asarray(call(rows)))
        answer["latency"] = _latencies(call, rows) if request["timed"] else {}
    return answer


def _write(folder: Path, main_file: str, compiled: Compiled) -> None:
    for name, data in {main_file: compiled.data, **compiled.files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _latencies(call: Callable[[dict[str, Any]], Any], rows: dict[str, Any]) -> dict[str, dict[str, float]]:
    found = {}
    for batch in Latency.BATCHES:
        latency = time_calls(call, rows, batch)
        if latency is not None:
            found[str(batch)] = {"p50": latency.p50, "p99": latency.p99}
    return found


if __name__ == "__main__":
    os.umask(0o077)
    main(Path(sys.argv[1]))
