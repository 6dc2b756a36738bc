"""Whether the parts of a stack answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from edgewright.cli.stack.processes import tail
from edgewright.cli.stack.state import StackState
from edgewright.errors import SystemFault

_AIRFLOW = ("metadatabase", "scheduler", "triggerer", "dag_processor")
_COMPONENT = {"scheduler": "scheduler", "triggerer": "triggerer", "dag-processor": "dag_processor"}


def health(state: StackState) -> dict[str, str]:
    """Return what each part says of itself: ``healthy``, ``starting``, ``gone``, or what is wrong."""
    airflow = _airflow(state.urls.get("airflow"))
    found: dict[str, str] = {}
    for part in state.parts:
        if part.process() is None:
            found[part.name] = "gone"
        elif part.name in _COMPONENT:
            found[part.name] = airflow.get(_COMPONENT[part.name], "starting")
        elif part.name == "api-server":
            found[part.name] = airflow.get("metadatabase", "starting")
        else:
            found[part.name] = _answers(f"{part.url}/health")
    return found


def _airflow(url: str | None) -> dict[str, str]:
    try:
        document = httpx.get(f"{url}/api/v2/monitor/health", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return {name: (document.get(name) or {}).get("status") or "starting" for name in _AIRFLOW}


def _answers(url: str) -> str:
    try:
        return "healthy" if httpx.get(url, timeout=5).status_code < 500 else "starting"
    except httpx.HTTPError:
        return "starting"


def wait_until_healthy(state: StackState, say: Callable[[dict[str, str]], None], timeout: float) -> None:
    """Wait until every part is healthy.

    Args:
        state: The stack.
        say: Called whenever something changed, with the health of each part.
        timeout: Seconds.

    Raises:
        SystemFault: a part ended, or is not healthy in time; shows the end of its log.
    """
    deadline = time.monotonic() + timeout
    before: dict[str, str] = {}
    while True:
        now = health(state)
        if now != before:
            say(now)
            before = now
        if all(value == "healthy" for value in now.values()):
            return
        gone = [name for name, value in now.items() if value == "gone"]
        if gone or time.monotonic() > deadline:
            name = gone[0] if gone else next(n for n, value in now.items() if value != "healthy")
            part = next(part for part in state.parts if part.name == name)
            what = "ended" if gone else f"is not healthy after {timeout:.0f} s"
            raise SystemFault(f"{name} {what}; the end of its log:\n{tail(Path(part.log))}", where=part.log)
        time.sleep(0.5)
