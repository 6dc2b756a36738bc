"""``on: local`` with ``python:`` or ``env:``: the step runs in a process of its own."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from edgewright.artifacts import ArtifactStore
from edgewright.places.lines import relay
from edgewright.places.outcome import collect, forget
from edgewright.places.venvs import interpreter
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import StepRequest, StepResult
from edgewright.steps.programs import Program


class Child:
    """Answers a request by a child process.

    Args:
        profile: One ``on: local``.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._program: Program | None = None

    def refusal(self, request: StepRequest) -> str | None:
        """Return what cannot be honoured here; a process can run wherever this one does."""
        return None

    def run(self, request: StepRequest, store: ArtifactStore) -> StepResult:
        """Answer a request.

        Raises:
            EdgewrightError: as the step raised it; or the environment could not be built.
        """
        python = sys.executable
        if self._profile.python is not None:
            python = str(interpreter(self._profile.python, Path(request.source.folder) if request.source else None))
        forget(store, request)
        with tempfile.TemporaryDirectory(prefix="edgewright-request-") as folder:
            file = Path(folder, "request.json")
            file.write_text(request.model_dump_json())
            code = self._wait([python, "-m", "edgewright.steps", str(file)])
        return collect(store, request, f"the process ended with {code}" if code >= 0 else f"killed by signal {-code}")

    def _wait(self, command: list[str]) -> int:
        environ = {**os.environ, **self._profile.env, "PYTHONUNBUFFERED": "1"}
        self._program = Program(command, environ)
        return self._program.run(relay)

    def cancel(self) -> None:
        """End the process and all that it started, if it still runs."""
        if self._program is not None:
            self._program.cancel()
