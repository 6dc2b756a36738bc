"""A small client of Airflow's REST API, logged in with a token.

The client waits out short absences where that is harmless: a read is tried again, starting a run never is unless it has
an id that makes a second start of the same run impossible.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from edgewright.cli.stack.state import StackState
from edgewright.errors import ConfigError, NotFound, Unavailable, UserFault
from edgewright.installation import find_home

FINISHED = {"success", "failed"}
#: Seconds for which a run is followed although Airflow does not answer.
_PATIENCE = 60.0
_PAGE = 100
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
TASK_FINISHED = {"success", "failed", "skipped", "upstream_failed", "removed"}


class AirflowApi:
    """Airflow's REST API at one address.

    Args:
        url: Base address, such as ``http://127.0.0.1:8080``.
        user: User name.
        password: Its password.
        token: A token instead of a password.
    """

    def __init__(self, url: str, user: str = "", password: str = "", token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._login = (user, password)
        # a proxy of the environment does not know this machine's own ports
        self._is_here = urlsplit(self.url).hostname in _LOOPBACK
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=not self._is_here)
        if token:
            self._client.headers["Authorization"] = f"Bearer {token}"
        self._has_token = bool(token)

    @classmethod
    def local(cls, home: Path | None = None, url: str | None = None) -> AirflowApi:
        """Return the API of an address, else of the Airflow that the environment names, else of the local stack.

        ``EDGEWRIGHT_AIRFLOW_URL`` with ``EDGEWRIGHT_AIRFLOW_TOKEN``, or ``_USER`` and ``_PASSWORD``, names one.

        Raises:
            ConfigError: the address is none.
            Unavailable: no stack runs here.
        """
        url = url or os.environ.get("EDGEWRIGHT_AIRFLOW_URL")
        if url:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ConfigError(f"not an address of Airflow: {url}", hint="such as https://airflow.example.org")
            given = {name: os.environ.get(f"EDGEWRIGHT_AIRFLOW_{name.upper()}", "") for name in ("user", "password")}
            return cls(url, **given, token=os.environ.get("EDGEWRIGHT_AIRFLOW_TOKEN"))
        place = home or find_home()
        state = StackState.load(place)
        if state is None or not state.running():
            raise Unavailable(f"no stack runs in {place}", hint="start it: edgewright up")
        password = json.loads(Path(state.login_file).read_text())["admin"]
        return cls(state.urls["airflow"], "admin", password)

    # -- calls -------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Return the document that a call answers with.

        Raises:
            NotFound: there is no such thing.
            UserFault: Airflow refuses, with its own words.
            Unavailable: it does not answer.
        """
        if not self._has_token:
            self._log_in()
        answer = self._send(method, f"/api/v2{path}", **arguments)
        if answer.status_code == 401 and self._login[0]:
            self._log_in()
            answer = self._send(method, f"/api/v2{path}", **arguments)
        if answer.status_code >= 400:
            self._refuse(answer)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            hint = "edgewright status says what runs; edgewright up starts it" if self._is_here else None
            raise Unavailable(f"Airflow does not answer: {error}", where=self.url, hint=hint) from error

    def _log_in(self) -> None:
        user, password = self._login
        answer = self._send("POST", "/auth/token", json={"username": user, "password": password})
        if answer.status_code >= 500:
            raise Unavailable(f"Airflow answers {answer.status_code} to the login", where=self.url)
        if answer.status_code >= 400:
            raise ConfigError(
                f"Airflow refuses the login of {user or 'nobody'} ({answer.status_code})",
                where=self.url,
                hint="EDGEWRIGHT_AIRFLOW_USER and EDGEWRIGHT_AIRFLOW_PASSWORD, or EDGEWRIGHT_AIRFLOW_TOKEN",
            )
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        self._has_token = True

    def _refuse(self, answer: httpx.Response) -> None:
        try:
            detail = answer.json().get("detail", answer.text)
        except ValueError:
            detail = answer.text
        text = detail if isinstance(detail, str) else json.dumps(detail)
        if answer.status_code == 401:
            hint = "EDGEWRIGHT_AIRFLOW_TOKEN is not valid (any more)"
            raise ConfigError("Airflow does not accept the token", where=self.url, hint=hint)
        if answer.status_code == 404:
            raise NotFound(text[:500], where=self.url)
        if answer.status_code >= 500:
            raise Unavailable(f"Airflow answers {answer.status_code}: {text[:300]}", where=self.url)
        raise UserFault(f"Airflow refuses ({answer.status_code}): {text[:1000]}", where=self.url)

    # -- Dags and runs -----------------------------------------------------------------------------------------

    def _all(self, path: str, key: str, **query: Any) -> list[dict[str, Any]]:
        """Return all entries of a list that Airflow hands out in pages."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, params={**query, "limit": _PAGE, "offset": len(found)})
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def version(self) -> str:
        """Return Airflow's version."""
        return str(self.call("GET", "/version")["version"])

    def dags(self) -> list[str]:
        """Return the ids of all Dags."""
        return [dag["dag_id"] for dag in self._all("/dags", "dags")]

    def tagged(self, tag: str) -> list[dict[str, Any]]:
        """Return the Dags that have a tag."""
        return self._all("/dags", "dags", tags=[tag])

    def source(self, dag_id: str) -> str:
        """Return the source that a Dag was made from.

        Raises:
            NotFound: Airflow has none.
        """
        path = f"/dagSources/{quote(dag_id, safe='')}"
        return str(self.call("GET", path, headers={"Accept": "application/json"})["content"])

    def unpause(self, dag_id: str) -> None:
        """Let the runs of a Dag start."""
        self.call("PATCH", f"/dags/{quote(dag_id, safe='')}", json={"is_paused": False})

    def details(self, dag_id: str) -> dict[str, Any]:
        """Return what Airflow knows of a Dag.

        Raises:
            NotFound: there is no such Dag; names those that there are, and why this one may be missing.
        """
        try:
            found: dict[str, Any] = self.call("GET", f"/dags/{quote(dag_id, safe='')}/details")
        except NotFound as error:
            raise self._no_dag(dag_id) from error
        return found

    def _no_dag(self, dag_id: str) -> NotFound:
        from edgewright.cli.output import did_you_mean

        known = self.dags()
        broken = [error["filename"] for error in self.import_errors()]
        hint = f"there are: {', '.join(known) or 'none yet'}{did_you_mean(dag_id, known)}"
        if broken:
            hint += f"; with faults: {', '.join(broken)} (edgewright check shows them)"
        return NotFound(f"Airflow has no Dag {dag_id}", where=self.url, hint=hint)

    def params(self, dag_id: str) -> dict[str, dict[str, Any]]:
        """Return a Dag's params: JSON Schema with ``default`` by name.

        Raises:
            NotFound: there is no such Dag; names those that there are.
        """
        return params_of(self.details(dag_id))

    def import_errors(self) -> list[dict[str, Any]]:
        """Return what could not be parsed."""
        return self._all("/importErrors", "import_errors")

    def wait_for_dag(self, dag_id: str, timeout: float = 90, *, since: float = 0.0) -> None:
        """Wait until Airflow has parsed a Dag.

        Args:
            dag_id: The Dag.
            timeout: Seconds.
            since: Parsed when, at the earliest (seconds since 1970): what an earlier Airflow knew may be old.

        Raises:
            UserFault: its file has faults; shows them.
            Unavailable: it does not appear in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            broken = [
                error
                for error in self.import_errors()
                if dag_id in str(error["filename"]).split("/") and _seconds(error["timestamp"]) >= since
            ]
            if broken:
                raise UserFault(broken[0]["stack_trace"].strip(), where=broken[0]["filename"])
            dags = {dag["dag_id"]: dag for dag in self._all("/dags", "dags")}
            if dag_id in dags and _seconds(dags[dag_id].get("last_parsed_time")) >= since:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"Airflow does not show the Dag {dag_id} after {timeout:.0f} s", where=self.url)
            time.sleep(0.5)

    def start_run(self, dag_id: str, conf: dict[str, Any], run_id: str | None = None) -> str:
        """Start a run and return its id."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf}
        if run_id:
            body["dag_run_id"] = run_id
        return str(self.call("POST", f"/dags/{quote(dag_id, safe='')}/dagRuns", json=body)["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run's document."""
        found: dict[str, Any] = self.call("GET", self._run_path(dag_id, run_id))
        return found

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run."""
        return self._all(f"{self._run_path(dag_id, run_id)}/taskInstances", "task_instances")

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1, lines: int = 40) -> str:
        """Return the last lines of a task's log; the rest is read and dropped, however long it is."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/logs/{max(1, try_number)}"
        last: deque[str] = deque(maxlen=lines)
        if not self._has_token:
            self._log_in()
        request = {"params": {"full_content": True, "map_index": map_index}, "timeout": 120}
        headers = {"Accept": "application/x-ndjson"}
        try:
            with self._client.stream("GET", f"/api/v2{path}", headers=headers, **request) as answer:  # type: ignore[arg-type]
                if answer.status_code >= 400:
                    answer.read()
                    self._refuse(answer)
                for line in answer.iter_lines():
                    last.extend(_log_lines(line))
        except httpx.HTTPError as error:
            raise Unavailable(f"the log cannot be read: {error}", where=self.url) from error
        return "\n".join(last)

    @staticmethod
    def _run_path(dag_id: str, run_id: str) -> str:
        return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"

    def follow(self, dag_id: str, run_id: str, timeout: float) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Yield the run and its tasks until the run has ended.

        Raises:
            Unavailable: it has not ended in time.
        """
        deadline = time.monotonic() + timeout
        answered = time.monotonic()
        while True:
            try:
                run, tasks = self.run(dag_id, run_id), self.tasks(dag_id, run_id)
            except Unavailable:
                # the run goes on without us; somebody may be starting Airflow anew
                if time.monotonic() - answered > min(_PATIENCE, timeout):
                    raise
            else:
                answered = time.monotonic()
                yield run, tasks
                if run["state"] in FINISHED:
                    return
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"run {run_id} of {dag_id} has not ended after {timeout:.0f} s",
                    where=self.run_url(dag_id, run_id),
                    hint="it goes on; --timeout gives it longer",
                )
            time.sleep(0.5)

    def run_url(self, dag_id: str, run_id: str) -> str:
        """Return a run's page."""
        return f"{self.url}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"

    def run_seconds(self, dag_id: str, conf: dict[str, Any]) -> float:
        """Start a run, wait for it, and return how long it took by Airflow's own clock (for benchmarks).

        Raises:
            UserFault: the run failed.
        """
        self.wait_for_dag(dag_id)
        run_id = self.start_run(dag_id, conf)
        run = [run for run, _ in self.follow(dag_id, run_id, 600)][-1]
        if run["state"] != "success":
            raise UserFault(f"run {run_id} of {dag_id} failed", where=self.url)
        return float(run["duration"])


def params_of(details: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a Dag's params: JSON Schema with ``default`` by name."""
    params = details.get("params") or {}
    return {name: {**(p.get("schema") or {}), "default": p.get("value")} for name, p in params.items()}


def _seconds(moment: str | None) -> float:
    """Return a moment as Airflow writes it in seconds since 1970; 0 for none."""
    return datetime.datetime.fromisoformat(moment).timestamp() if moment else 0.0


def _log_lines(line: str) -> list[str]:
    """Return the lines for people of one line of a streamed log; marks of groups are left out."""
    try:
        entry = json.loads(line)
    except ValueError:
        return [line] if line else []
    if not isinstance(entry, dict):
        return [str(entry)]
    text = str(entry.get("event", ""))
    if text.startswith("::"):
        return []
    for fault in entry.get("error_detail") or ():
        text += f"\n{fault.get('exc_type')}: {fault.get('exc_value')}"
    return text.splitlines()
