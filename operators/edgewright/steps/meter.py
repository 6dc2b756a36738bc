"""How far a reading is: rows, bytes and their rate, in the task's log."""

from __future__ import annotations

import threading
import time

from edgewright.steps.context import StepContext


class Meter:
    """Counts rows and bytes, from any thread, and logs them about once a second.

    Args:
        context: The step, in whose log it writes.
        total: Bytes that there are; ``None`` where nobody knows.
    """

    def __init__(self, context: StepContext, total: int | None = None) -> None:
        self._context = context
        self._total = total
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.rows = 0
        self.bytes = 0

    def add(self, rows: int, size: int, what: str = "") -> None:
        """Count more.

        Args:
            rows: Rows more.
            size: Bytes more.
            what: What else the line says, such as ``part 3 of 16``.
        """
        with self._lock:
            self.show(self.rows + rows, self.bytes + size, what)

    def show(self, rows: int, size: int, what: str = "") -> None:
        """Say how many there are now."""
        self.rows, self.bytes = rows, size
        passed = max(time.monotonic() - self._began, 1e-3)
        rate = f"{rows / passed:,.0f} rows/s, {size / passed / 1e6:,.1f} MB/s"
        more = f", {what}" if what else ""
        self._context.progress(f"{rows:,} rows read, {rate}{more},", size, self._total, "bytes")
