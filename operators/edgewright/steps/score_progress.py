"""How far a job is: rows, rate and the estimated end, into the task's log every few seconds."""

from __future__ import annotations

import time

from edgewright.steps.context import StepContext


class Progress:
    """Counts rows and bytes; a command line shows them in its own way by overriding :meth:`show`.

    Args:
        context: The step, whose log is written.
        every: Seconds between two lines.
    """

    def __init__(self, context: StepContext, every: float = 5.0) -> None:
        self.context = context
        self.every = every
        self.rows = self.bytes = self.total = 0
        self._begun = self._shown = time.monotonic()

    def begin(self, total: int, waiting: int, shards: int) -> None:
        """Start counting.

        Args:
            total: Bytes that are to be read; 0 where nobody knows.
            waiting: Shards that are to be scored.
            shards: Shards of this task in all.
        """
        self.total = total
        self._begun = self._shown = time.monotonic()
        if waiting < shards:
            self.context.note("%d of %d shards were scored before", shards - waiting, shards)

    def __call__(self, rows: int, size: int) -> None:
        """Count rows and bytes (negative: a process died, and they will come again)."""
        self.rows += rows
        self.bytes += size
        if time.monotonic() - self._shown >= self.every:
            self._shown = time.monotonic()
            self.show()

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; ``None`` where nobody knows."""
        return min(1.0, self.bytes / self.total) if self.total else None

    @property
    def rate(self) -> float:
        """Rows a second since the beginning."""
        return self.rows / max(time.monotonic() - self._begun, 1e-6)

    @property
    def left(self) -> float | None:
        """Estimated seconds until the end; ``None`` where nobody knows."""
        if not self.bytes or not self.total:
            return None
        return (time.monotonic() - self._begun) * max(0, self.total - self.bytes) / self.bytes

    def show(self) -> None:
        """Write a line into the log."""
        share = "" if self.share is None else f", {self.share:.0%}"
        left = "" if self.left is None else f", ends in about {self.left:,.0f} s"
        self.context.note("progress: %s rows%s, %s rows/s%s", f"{self.rows:,}", share, f"{self.rate:,.0f}", left)

    def end(self) -> None:
        """Say that all is done."""
        if self.rows:
            self.context.note("progress: %s rows, %s rows/s", f"{self.rows:,}", f"{self.rate:,.0f}")
