"""What a running step has at hand: the store, its scratch folder, the user's code, progress."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from edgewright.artifacts import ArtifactRef, ArtifactStore, Kind
from edgewright.errors import ConfigError, DataError
from edgewright.steps.contract import StepRequest

log = logging.getLogger("edgewright.steps")


class StepContext:
    """Handed to ``run(config, context)``. A context manager: the scratch folder goes at the end.

    Attributes:
        request: The request that is being answered.
        store: The artifact store.
        scratch: Empty folder of this step; nothing in it survives.
    """

    def __init__(self, request: StepRequest, store: ArtifactStore | None = None) -> None:
        self.request = request
        self.store = store or ArtifactStore(request.store)
        self.scratch = Path(tempfile.mkdtemp(prefix=f"edgewright-{request.step}-"))
        self._progress_at = 0.0

    def __enter__(self) -> StepContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    # -- artifacts ---------------------------------------------------------------------------------------------

    def folder(self, name: str) -> Path:
        """Return a new empty folder in the scratch area, to be filled and then :meth:`put`."""
        path = self.scratch / name
        path.mkdir(parents=True)
        return path

    def put(self, folder: Path, kind: Kind, meta: dict[str, Any] | None = None) -> ArtifactRef:
        """Store a filled folder as an artifact."""
        return self.store.put(folder, kind, meta)

    def fetch(self, ref: ArtifactRef) -> Path:
        """Return a local, verified, read-only folder of an artifact."""
        return self.store.fetch(ref)

    # -- the pipeline's folder ---------------------------------------------------------------------------------

    @property
    def source_folder(self) -> Path:
        """The pipeline's folder.

        Raises:
            ConfigError: the step was called without a pipeline.
        """
        if self.request.source is None:
            raise ConfigError("there is no pipeline folder here", hint="give the request a source")
        return Path(self.request.source.folder).resolve()

    def path(self, relative: str) -> Path:
        """Return the path of a file of the pipeline's folder.

        Raises:
            ConfigError: the path leads out of the folder.
            DataError: there is no such file.
        """
        folder = self.source_folder
        path = (folder / relative).resolve()
        if not path.is_relative_to(folder):
            raise ConfigError(
                f"{relative} leads out of the pipeline's folder", hint="paths are relative and stay inside"
            )
        if not path.exists():
            near = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_file())[:20])
            raise DataError(f"no such file: {relative}", where=str(folder), hint=f"the folder holds: {near}")
        return path

    # -- people ------------------------------------------------------------------------------------------------

    def progress(self, what: str, done: float, total: float | None = None, unit: str = "") -> None:
        """Log progress, at most once a second (and always at the end).

        Args:
            what: What is under way, such as ``rows``.
            done: How much is done.
            total: How much there is; ``None`` where nobody knows.
            unit: What is counted.
        """
        now = time.monotonic()
        if now - self._progress_at < 1.0 and done != total:
            return
        self._progress_at = now
        share = f" ({done / total:.0%})" if total else ""
        of = f"/{total:,.0f}" if total else ""
        log.info("progress: %s %s%s%s%s", what, f"{done:,.0f}", of, f" {unit}" if unit else "", share)

    def note(self, text: str, *values: object) -> None:
        """Write a line to the task's log."""
        log.info(text, *values)
