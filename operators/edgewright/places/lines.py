"""Lines that a step writes elsewhere, in this task's log: as they come, bounded, with the level that they had."""

from __future__ import annotations

import logging
import re

log = logging.getLogger("edgewright.steps")
_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]?\d*Z? "
_LINE = re.compile(rf"^(?:{_TIME})?(?:(DEBUG|INFO|WARNING|ERROR|CRITICAL) )?(.*)$", re.S)
#: Longest line that is passed on whole.
LONGEST = 8192


def relay(line: str) -> None:
    """Write one line of a step's output into this process's log."""
    match = _LINE.match(line.rstrip("\r\n"))
    level, text = (match[1], match[2]) if match else (None, line)
    if text:
        log.log(logging.getLevelNamesMapping()[level] if level else logging.INFO, "%s", text[:LONGEST])
