"""Starting and stopping the processes of a stack, by PID and nothing else."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from edgewright.cli.stack.state import Part, StackState

#: Seconds that a process has to end by itself.
GRACE = 25.0
_KEPT = 5 << 20


def start(name: str, command: list[str], environment: Mapping[str, str], log: Path, *, port: int | None = None) -> Part:
    """Start one part in a session of its own; its output goes to its log file.

    Args:
        name: What it is.
        command: Program and arguments.
        environment: Its whole environment.
        log: File to append to; one that has grown beyond 5 MiB is set aside first.
        port: Port that it will listen on, for the record.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _KEPT:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    created = psutil.Process(process.pid).create_time()
    return Part(name, process.pid, created, str(log), port, f"http://127.0.0.1:{port}" if port else None)


def stop(state: StackState, *, grace: float = GRACE) -> list[int]:
    """Stop a stack: ask its parts to end, the last started first, then end what is left.

    Returns:
        PIDs that had to be killed.
    """
    everyone = state.members()
    for part in reversed(state.parts):
        process = part.process()
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.terminate()
    _, left = psutil.wait_procs([p for p in (part.process() for part in state.parts) if p], timeout=grace)
    # what they forked ends with them; orphans of a part that was killed do not
    orphans = _living([*everyone, *state.members(), *left])
    for process in orphans:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(orphans, timeout=5.0)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5.0)
    return [process.pid for process in stubborn]


def _living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    unique = {process.pid: process for process in processes}
    return [p for p in unique.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def tail(log: Path, lines: int = 25) -> str:
    """Return the last lines of a log file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
