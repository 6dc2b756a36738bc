"""What a started stack leaves on disk, and which of its processes still live.

A process is recognised by its PID together with the time at which it was created, so a PID that was given to somebody
else is never touched. Every part of a stack leads a session of its own, and what it forks belongs to that session even
after the part was killed; what left the session is recognised by a variable that all of them inherit.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

FILE = "stack.json"
#: Variable in the environment of every process of a stack; its value is the stack's home folder.
MARK = "EDGEWRIGHT_STACK"
#: Clocks of process tables are this coarse, in seconds.
_CLOCK = 1.0


@dataclass
class Running:
    """A process, as it can be found again.

    Attributes:
        pid: Its PID.
        created: When the operating system created it (seconds since 1970).
    """

    pid: int
    created: float

    @classmethod
    def me(cls) -> Running:
        """Return this process."""
        return cls(os.getpid(), psutil.Process().create_time())

    def process(self) -> psutil.Process | None:
        """Return the process if it still runs and is the one that was meant."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < _CLOCK
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


@dataclass
class Part(Running):
    """One process of a stack, which is also the leader of its session.

    Attributes:
        name: What it is, such as ``scheduler``.
        log: Its log file.
        port: Port that it listens on, if it does.
        url: Where it answers, if it does.
    """

    name: str = ""
    log: str = ""
    port: int | None = None
    url: str | None = None


@dataclass
class StackState:
    """A started stack.

    Attributes:
        home: Its home folder.
        dags: Folder of the pipelines.
        parts: Its processes in the order in which they were started.
        urls: Pages for people by name.
        login_file: File with user names and passwords.
        owner: The process that will stop it (a demo, ``up --foreground``); ``None`` where it runs by itself.
        started: When it was started (seconds since 1970).
        versions: Versions of what runs, by distribution.
        complete: Whether every part was started.
        stopping: Whether somebody has begun to stop it.
    """

    home: str
    dags: str
    parts: list[Part] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)
    login_file: str = ""
    owner: Running | None = None
    started: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    stopping: bool = False

    @classmethod
    def load(cls, home: Path) -> StackState | None:
        """Return the stack of a home folder, or ``None`` if none was started."""
        try:
            document: dict[str, Any] = json.loads((home / FILE).read_text())
            parts = [Part(**part) for part in document.pop("parts")]
            owner = document.pop("owner", None)
            return cls(parts=parts, owner=Running(**owner) if owner else None, **{"home": str(home), **document})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self) -> None:
        """Write the state in one step."""
        home = Path(self.home)
        temporary = home / f".tmp-{FILE}-{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(home / FILE)

    def forget(self) -> None:
        """Remove the state of a stack that was stopped."""
        (Path(self.home) / FILE).unlink(missing_ok=True)

    def running(self) -> list[Part]:
        """Return the parts whose process lives."""
        return [part for part in self.parts if part.process() is not None]

    def is_orphaned(self) -> bool:
        """Return whether the process that was to stop it has gone without doing so."""
        return self.owner is not None and self.owner.process() is None

    def members(self) -> list[psutil.Process]:
        """Return every process of this stack: the parts and what they started, the orphans too."""
        sessions = {part.pid: part.created for part in self.parts}
        mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        return [
            process
            for process in psutil.process_iter(["create_time", "status"])
            if process.pid not in mine
            and process.info["status"] != psutil.STATUS_ZOMBIE
            and (_in_session(process, sessions) or _is_marked(process, self.home))
        ]


def _in_session(process: psutil.Process, sessions: dict[int, float]) -> bool:
    """Whether a process belongs to one of the sessions, and not to a later one that was given the same number."""
    try:
        session = os.getsid(process.pid)
    except (ProcessLookupError, PermissionError):
        return False
    led_since, created = sessions.get(session), process.info["create_time"]
    if led_since is None or created is None or created < led_since - _CLOCK:
        return False
    return process.pid != session or bool(abs(created - led_since) < _CLOCK)


def _is_marked(process: psutil.Process, home: str) -> bool:
    try:
        return process.environ().get(MARK) == home
    except (psutil.Error, OSError):
        return False
