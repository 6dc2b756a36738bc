"""Compile and run a model in the target's own environment: a child process with bounded time and memory.

What a compiler prints is streamed to the log line by line, but for lines that hold numbers in a row: quantizers print
the data that they calibrate with, and data do not belong into a log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgewright.errors import SystemFault, UserFault
from edgewright.targets.base import Compiled, Job, Target
from edgewright.targets.child import OUT
from edgewright.targets.environments import environment_python, reuse_folder
from edgewright.targets.timing import Latency

log = logging.getLogger("edgewright.targets")

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NUMBER = r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?"
#: An array's line: a number alone, two in a row, one in brackets, or one with more digits than a version has.
DATA_LINE = rf"^{_NUMBER}[,\s\]]*$|{_NUMBER}[,\s\]]+{_NUMBER}[,\s\]]*|\[\s*{_NUMBER}|\d\.\d{{4,}}|array\("
_DATA = re.compile(DATA_LINE)
_LONGEST = 300
_MOST_LINES = 400


@dataclass(frozen=True)
class Proof:
    """What came of running a compiled model on rows.

    Attributes:
        scores: What it answered, ``[rows, ...]``.
        latency: Times of a call by rows a call.
    """

    scores: Any
    latency: dict[int, Latency] = field(default_factory=dict)


def compile_isolated(
    target: Target, job: Job, rows: Mapping[str, Any] | None, *, timed: bool = True
) -> tuple[Compiled, Proof | None, float]:
    """Compile in the target's environment, and run what was made.

    Args:
        target: One with an ``environment``.
        job: What to compile.
        rows: Input arrays to run it on; ``None`` where nothing here can run it.
        timed: Whether the times of a call mean anything.

    Returns:
        What was compiled; what it answered; and the seconds that the compiler itself took.

    Raises:
        UserFault: the model cannot be compiled for this target within its limits.
        SystemFault: the compiler failed in a way that it does not explain.
    """
    import numpy as np

    python = environment_python(target)
    folder = job.scratch / "child"
    folder.mkdir(mode=0o700)
    (folder / "model.onnx").write_bytes(job.model)
    np.savez(folder / "calibration.npz", **job.calibration)
    np.savez(folder / "rows.npz", **(rows or {}))
    request = {
        "module": target.module,
        "file": f"model{target.suffix}",
        "options": dict(job.options),
        "kept": str(reuse_folder(target)),
        "prove": rows is not None,
        "timed": timed,
        "memory_gib": target.memory_gib,
        "seconds": target.seconds,
    }
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    tail = _run(python, folder, target)
    answer = _read_answer(folder, target, tail)
    compiled = Compiled(
        (folder / OUT / f"model{target.suffix}").read_bytes(),
        details=answer["details"],
        notes=tuple(answer["notes"]),
        files=_other_files(folder / OUT, f"model{target.suffix}"),
        tools=answer["tools"],
        unverified=answer["unverified"],
    )
    if rows is None or compiled.unverified:
        return compiled, None, float(answer["seconds"])
    latency = {int(batch): Latency(**times) for batch, times in answer["latency"].items()}
    proof = Proof(np.load(folder / "scores.npy", allow_pickle=False), latency)
    return compiled, proof, float(answer["seconds"])


def _other_files(folder: Path, main_file: str) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    found.pop(main_file)
    return found


def child_environ(python: Path, folder: Path) -> dict[str, str]:
    """Return a small environment: the child needs no secret that this process may have."""
    library = folder / "lib"
    library.mkdir()
    # this package alone, not the folder that it is installed in, whose other packages are not the child's
    (library / "edgewright").symlink_to(Path(__file__).parents[1], target_is_directory=True)
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "LD_LIBRARY_PATH", "HOME") if name in os.environ}
    return {
        **kept,
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(library),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _run(python: Path, folder: Path, target: Target) -> list[str]:
    """Run the child; return the last lines of its log."""
    process = subprocess.Popen(  # noqa: S603 (our own arguments, no shell)
        [str(python), "-m", "edgewright.targets.child", str(folder)],
        cwd=folder,
        env=child_environ(python, folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    tail: list[str] = []
    reader = threading.Thread(target=_stream, args=(process.stdout, target.name, tail), daemon=True)
    reader.start()
    try:
        process.wait(target.seconds)
    except subprocess.TimeoutExpired:
        raise UserFault(
            f"compiling for {target.name} took longer than {target.seconds:.0f} s",
            hint="a smaller model, or options that ask for less",
        ) from None
    finally:
        # the whole group: compilers start compilers
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(5)
    return tail


def _stream(lines: IO[str], name: str, tail: list[str]) -> None:
    shown = hidden = 0
    for line in lines:
        text = _COLOURS.sub("", line).strip()
        if not text:
            continue
        if is_data(text):
            hidden += 1
            continue
        shown += 1
        tail[:] = [*tail[-11:], text[:_LONGEST]]
        if shown <= _MOST_LINES:
            log.info("%s: %s", name, text[:_LONGEST])
    if hidden:
        log.info("%s: left out %d lines with numbers (they may be calibration data)", name, hidden)


def is_data(text: str) -> bool:
    """Whether a line may show values of an array, so that it must not be logged."""
    return _DATA.search(text) is not None


def _read_answer(folder: Path, target: Target, tail: list[str]) -> dict[str, Any]:
    path = folder / "answer.json"
    if not path.exists():
        raise SystemFault(
            f"the compiler of {target.name} ended without an answer: {tail[-1] if tail else 'it printed nothing'}",
            hint="the task's log has what it printed",
        )
    answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    fault = answer.get("fault")
    if fault:
        kind = UserFault if fault["user"] else SystemFault
        raise kind(f"{target.name}: {fault['message']}", where=fault.get("where"), hint=fault.get("hint"))
    return answer
