"""Programs that a step starts: their lines as they come, and an end for all that they started."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

#: Seconds between asking a process to end and ending it.
GRACE = 10.0


class Program:
    """One child process in a session of its own, so that what it starts ends with it.

    Args:
        command: The program and its arguments; no shell reads them.
        env: All of its environment.
        cwd: The folder that it runs in; this process's where it is left out.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> None:
        self._command = list(command)
        self._env = dict(env)
        self._cwd = cwd
        self._process: subprocess.Popen[str] | None = None

    def run(self, on_line: Callable[[str], None]) -> int:
        """Run it to its end, and return its exit code (negative: the signal that killed it).

        Args:
            on_line: Called with each line of what it writes, standard error included.

        Raises:
            FileNotFoundError: there is no such program.
        """
        self._process = subprocess.Popen(  # noqa: S603 (no shell)
            self._command, env=self._env, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            for line in self._process.stdout or ():
                on_line(line)
            return self._process.wait()
        finally:
            self.cancel()

    @property
    def ended_by_itself(self) -> bool:
        """Whether it came to an end of its own, though it may have been asked to; no signal cut it off."""
        code = None if self._process is None else self._process.poll()
        return code is not None and code >= 0

    def cancel(self) -> None:
        """End the process and all that it started, if it still runs."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
