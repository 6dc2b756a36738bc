"""Whether the parts of a stack answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from edgewright.cli.stack.processes import listening, tail
from edgewright.cli.stack.state import Part, StackState
from edgewright.errors import SystemFault

HEALTHY = "healthy"
#: A prediction service that nothing was deployed to yet: it works.
EMPTY = "no model yet"
WORKING = (HEALTHY, EMPTY)
GONE = "gone"
_STARTING = "starting"
_AIRFLOW = ("metadatabase", "scheduler", "triggerer", "dag_processor")
_COMPONENT = {"scheduler": "scheduler", "triggerer": "triggerer", "dag-processor": "dag_processor"}


class PartFailed(SystemFault):
    """A part of the stack ended, or did not become healthy in time."""

    def __init__(self, part: Part, what: str) -> None:
        super().__init__(f"{part.name} {what}; the end of its log:\n{tail(Path(part.log))}", where=part.log)
        self.part = part


def health(state: StackState) -> dict[str, str]:
    """Return what each part says of itself: ``healthy``, ``no model yet``, ``starting``, ``gone``, or what is wrong."""
    airflow = _airflow(state.urls.get("airflow"))
    found: dict[str, str] = {}
    for part in state.parts:
        if part.process() is None:
            found[part.name] = GONE
        elif part.name in _COMPONENT:
            found[part.name] = airflow.get(_COMPONENT[part.name], _STARTING)
        elif part.name == "api-server":
            found[part.name] = airflow.get("metadatabase", _STARTING) if _serves_tasks(part.url) else _STARTING
        elif part.name == "mlflow":
            answer = _get(f"{part.url}/health")
            found[part.name] = HEALTHY if answer is not None and answer.is_success else _STARTING
        else:
            found[part.name] = _service(part.url)
    return found


def _airflow(url: str | None) -> dict[str, str]:
    document = _json(_get(f"{url}/api/v2/monitor/health")) if url else {}
    parts = {name: document.get(name) for name in _AIRFLOW} if document else {}
    return {name: part.get("status") or _STARTING for name, part in parts.items() if isinstance(part, dict)}


def _serves_tasks(url: str | None) -> bool:
    """Whether the API that tasks report to answers; its first answer takes seconds, longer than a task waits for it."""
    answer = _get(f"{url}/execution/health", timeout=60)
    return answer is not None and answer.is_success


def _service(url: str | None) -> str:
    document = _json(_get(f"{url}/health"))
    if not document:
        return _STARTING
    problems = document.get("problems")
    if document.get("models"):
        return f"degraded: {problems}" if problems else HEALTHY
    return f"unavailable: {problems}" if problems else EMPTY


def _json(answer: httpx.Response | None) -> dict[str, Any]:
    try:
        document = answer.json() if answer is not None else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _get(url: str, timeout: float = 5) -> httpx.Response | None:
    """Return an answer of this machine (never by way of a proxy), or ``None``."""
    try:
        with httpx.Client(trust_env=False, timeout=timeout) as client:
            return client.get(url)
    except httpx.HTTPError:
        return None


def wait_until_healthy(state: StackState, say: Callable[[str], None], timeout: float) -> None:
    """Wait until every part is healthy, and on the port that it was given.

    Args:
        state: The stack.
        say: Told a line whenever a part has become healthy.
        timeout: Seconds.

    Raises:
        PartFailed: a part ended, lost its port, or is not healthy in time; shows the end of its log.
    """
    started = time.monotonic()
    said: set[str] = set()
    while True:
        now = health(state)
        for name in [name for name, value in now.items() if value in WORKING and name not in said]:
            said.add(name)
            say(f"  {name:<18} {now[name]} after {time.monotonic() - started:.0f} s")
        late = time.monotonic() - started > timeout
        for part in state.parts:
            if now[part.name] == GONE:
                raise PartFailed(part, "ended")
            if late and now[part.name] not in WORKING:
                raise PartFailed(part, f"is not healthy after {timeout:.0f} s ({now[part.name]})")
        if all(value in WORKING for value in now.values()):
            _check_ports(state)
            return
        time.sleep(0.5)


def _check_ports(state: StackState) -> None:
    """Refuse answers that came from somebody else who took the port in the meantime."""
    ports = listening(state)
    for part in state.parts:
        if part.port is not None and part.port not in ports:
            raise PartFailed(part, f"does not listen on port {part.port}")
