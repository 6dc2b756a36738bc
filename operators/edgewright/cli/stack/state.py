"""What a started stack leaves on disk, and which of its processes still live.

A process is recognised by its PID together with the time at which it was created, so a PID that was given to somebody
else is never touched. Every part of a stack leads a session of its own; what it forked belongs to that session even
after the part itself was killed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

FILE = "stack.json"


@dataclass
class Part:
    """One process of a stack.

    Attributes:
        name: What it is, such as ``scheduler``.
        pid: Its PID, which is also its session.
        created: When the operating system created it (seconds since 1970).
        port: Port that it listens on, if it does.
        url: Where it answers, if it does.
        log: Its log file.
    """

    name: str
    pid: int
    created: float
    log: str
    port: int | None = None
    url: str | None = None

    def process(self) -> psutil.Process | None:
        """Return the process if it still runs and is the one that was started."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


@dataclass
class StackState:
    """A started stack.

    Attributes:
        dags: Folder of the pipelines.
        parts: Its processes in the order in which they were started.
        urls: Pages for people by name.
        login_file: File with user names and passwords.
        owner: PID of the process that watches over it (``demo``), if there is one.
    """

    dags: str
    parts: list[Part] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)
    login_file: str = ""
    owner: int | None = None

    @classmethod
    def load(cls, home: Path) -> StackState | None:
        """Return the stack of a home folder, or ``None`` if none was started."""
        try:
            document: dict[str, Any] = json.loads((home / FILE).read_text())
            parts = [Part(**part) for part in document.pop("parts")]
            return cls(parts=parts, **document)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, home: Path) -> None:
        """Write the state in one step."""
        temporary = home / f".tmp-{FILE}-{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(home / FILE)

    @staticmethod
    def forget(home: Path) -> None:
        """Remove the state of a stack that was stopped."""
        (home / FILE).unlink(missing_ok=True)

    def running(self) -> list[Part]:
        """Return the parts whose process lives."""
        return [part for part in self.parts if part.process() is not None]

    def members(self) -> list[psutil.Process]:
        """Return every process that belongs to this stack: the parts and what they forked, the orphans too."""
        sessions = {part.pid: part.created for part in self.parts}
        found = []
        for process in psutil.process_iter(["pid", "create_time", "status"]):
            try:
                session = os.getsid(process.pid)
                started = sessions.get(session)
                if started is None or process.info["status"] == psutil.STATUS_ZOMBIE:
                    continue
                leader_reused = process.pid == session and abs(process.info["create_time"] - started) >= 1.0
                if not leader_reused and process.info["create_time"] >= started - 1.0:
                    found.append(process)
            except (ProcessLookupError, PermissionError, psutil.Error):
                continue
        return found
