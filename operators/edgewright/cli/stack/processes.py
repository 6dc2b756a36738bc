"""Starting and stopping the processes of a stack, by PID and nothing else."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

from edgewright.cli.stack.ports import HOST
from edgewright.cli.stack.state import Part, StackState

#: Seconds that a process has to end by itself.
GRACE = 20.0
_ORPHANS_GRACE = 5.0
_KEPT = 5 << 20
#: What others need ends after them: tasks that are told to stop still report to the API server, and log to MLflow.
_STOPPED_LATER = {"api-server": 1, "mlflow": 2}


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
    url = f"http://{HOST}:{port}" if port else None
    return Part(process.pid, created, name=name, log=str(log), port=port, url=url)


def stop(state: StackState, *, grace: float = GRACE, say: Callable[[str], None] = lambda line: None) -> list[int]:
    """Stop a stack: ask its parts to end, those that others need last, then end what is left.

    Args:
        state: The stack.
        grace: Seconds that each group of parts has to end by itself.
        say: Told what had to be killed.

    Returns:
        PIDs that had to be killed.
    """
    everyone = state.members()
    for turn in range(max(_STOPPED_LATER.values()) + 1):
        parts = [part for part in reversed(state.parts) if _STOPPED_LATER.get(part.name, 0) == turn]
        processes = [process for process in (part.process() for part in parts) if process is not None]
        _ask(processes)
        psutil.wait_procs(processes, timeout=grace)
    # what they forked ends with them; orphans of a part that was killed do not
    orphans = _living([*everyone, *state.members()])
    _ask(orphans)
    _, stubborn = psutil.wait_procs(orphans, timeout=_ORPHANS_GRACE)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            say(f"had to be killed: PID {process.pid} ({process.name()})")
            process.kill()
    psutil.wait_procs(stubborn, timeout=_ORPHANS_GRACE)
    return [process.pid for process in stubborn]


def _ask(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()


def _living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
    return list(found.values())


def listening(state: StackState) -> dict[int, set[str]]:
    """Return the addresses that the stack's processes listen on, by port."""
    found: dict[int, set[str]] = {}
    for process in state.members():
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(connection.laddr.port, set()).add(connection.laddr.ip)
    return found


def tail(log: Path, lines: int = 25) -> str:
    """Return the last lines of a log file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
