"""``python -m edgewright.steps.foreign stage|collect REQUEST FOLDER``: both ends of a command in somebody else's image.

``stage`` fills the folder that the command will see. ``collect`` waits until the command has said how it ended, and
answers the request with what it left: the step runs as ever, only that its program hands over the files (``train``),
or its compiler takes them (``quantize``).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from edgewright.artifacts import ArtifactStore
from edgewright.errors import EdgewrightError
from edgewright.steps.contract import StepRequest, Terminated
from edgewright.steps.programs import GRACE
from edgewright.steps.snapshot import unpacked

CODE, PID, KEY = "code", "pid", "checkpoint.key"
_POLL = 0.5


def collecting(request: StepRequest, folder: Path) -> StepRequest:
    """Return the request that is answered with what the command left in the folder.

    What was run elsewhere is not reused: the image is not ours to digest.
    """
    if request.step == "quantize":
        return unpacked(request).model_copy(update={"shared": str(folder), "cache": "off"})
    hand = [sys.executable, "-m", "edgewright.steps.foreign", "hand", str(folder)]
    config = {**request.config, "interpreter": hand, "inputs": {}, "checkpoint": None}
    return unpacked(request).model_copy(update={"config": config, "cache": "off"})


def collect(request: StepRequest, folder: Path) -> int:
    """Wait for the command, answer the request; return the exit code of the container."""
    from edgewright.steps.execute import execute

    try:
        with kept_checkpoints(request, folder):
            while _code(folder) is None:
                if _was_killed(folder):
                    (folder / CODE).write_text("137\n")
                time.sleep(_POLL)
        execute(collecting(request, folder))
    except EdgewrightError as error:
        print(f"error: {request.step}: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    done_with(request)
    return 0


@contextlib.contextmanager
def kept_checkpoints(request: StepRequest, folder: Path) -> Iterator[None]:
    """Keep the folder of checkpoints, where the task has one, while the command runs."""
    key = folder / KEY
    if not key.is_file():
        yield
        return
    from edgewright.steps.checkpoints import staged

    with staged(request, folder / "checkpoint", key.read_text()) as saver:
        try:
            yield
        except Terminated:
            # the command was asked to end as we were; what it writes on its way out counts too
            deadline = time.monotonic() + GRACE
            while _code(folder) is None and not _was_killed(folder) and time.monotonic() < deadline:
                time.sleep(_POLL)
            raise
        finally:
            saver.whole = _code(folder) is not None


def done_with(request: StepRequest) -> None:
    """Forget the checkpoints of a command that succeeded."""
    if request.config.get("checkpoint"):
        from edgewright.steps.checkpoints import forget

        forget(ArtifactStore(request.store), request.identity)


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _was_killed(folder: Path) -> bool:
    """Whether the command's shell is gone and has not said how it ended."""
    try:
        pid = int((folder / PID).read_text())
    except (OSError, ValueError):
        return False  # not started yet
    if Path("/proc", str(pid)).exists():
        return False
    time.sleep(_POLL)  # it may have written its last line a moment ago
    return _code(folder) is None


def _code(folder: Path) -> int | None:
    """Return how the command ended, or ``None`` where that is not (wholly) written yet."""
    try:
        return int((folder / CODE).read_text())
    except (OSError, ValueError):
        return None


def hand_over(folder: Path, output: Path, say: TextIO = sys.stderr) -> int:
    """Copy what the command left into the folder where the step looks for it; return how the command ended."""
    code = _code(folder)
    if code is None or code:
        print("what it wrote stands above, in the log of its own container", file=say)
        return 137 if code is None else code
    shutil.copytree(folder / "output", output, dirs_exist_ok=True)
    return 0


def main(arguments: list[str]) -> int:
    """Run one of the two ends, or the program between them."""
    import logging
    import os

    what, *rest = arguments
    if what == "hand":
        return hand_over(Path(rest[0]), Path(os.environ["EDGEWRIGHT_OUTPUT"]))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    request, folder = StepRequest.model_validate(json.loads(Path(rest[0]).read_text())), Path(rest[1])
    if what == "collect":
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return collect(request, folder)
        except Terminated:
            return 128 + signal.SIGTERM
    try:
        # by name, so that whoever imports this module for its other half loads no library for tables
        importlib.import_module("edgewright.steps.foreign_stage").stage(request, folder, *rest[2:])
    except EdgewrightError as error:
        print(f"error: staging: {error}", file=sys.stderr)  # noqa: T201
        with contextlib.suppress(OSError):  # a pod shows it; elsewhere there is no such file
            Path("/dev/termination-log").write_text(str(error)[:4000])
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
