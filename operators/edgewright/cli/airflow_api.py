"""A small client of Airflow's REST API, logged in with a token."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from edgewright.cli.stack.state import StackState
from edgewright.errors import ConfigError, NotFound, Unavailable, UserFault
from edgewright.installation import find_home

FINISHED = {"success", "failed"}
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
        self._client = httpx.Client(base_url=self.url, timeout=30)
        if token:
            self._client.headers["Authorization"] = f"Bearer {token}"
        self._has_token = bool(token)

    @classmethod
    def local(cls, home: Path | None = None) -> AirflowApi:
        """Return the API of the running local stack, or of the Airflow that the environment names.

        ``EDGEWRIGHT_AIRFLOW_URL`` with ``EDGEWRIGHT_AIRFLOW_TOKEN``, or ``_USER`` and ``_PASSWORD``, names another one.

        Raises:
            Unavailable: no stack runs here.
        """
        url = os.environ.get("EDGEWRIGHT_AIRFLOW_URL")
        if url:
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
        if answer.status_code == 401:
            self._log_in()
            answer = self._send(method, f"/api/v2{path}", **arguments)
        if answer.status_code >= 400:
            self._refuse(answer)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            hint = "start it: edgewright up"
            raise Unavailable(f"Airflow does not answer: {error}", where=self.url, hint=hint) from error

    def _log_in(self) -> None:
        user, password = self._login
        answer = self._send("POST", "/auth/token", json={"username": user, "password": password})
        if answer.status_code >= 400:
            raise ConfigError(f"Airflow refuses the login of {user or 'nobody'}", where=self.url)
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        self._has_token = True

    def _refuse(self, answer: httpx.Response) -> None:
        try:
            detail = answer.json().get("detail", answer.text)
        except ValueError:
            detail = answer.text
        text = detail if isinstance(detail, str) else json.dumps(detail)
        if answer.status_code == 404:
            raise NotFound(text[:500], where=self.url)
        if answer.status_code >= 500:
            raise Unavailable(f"Airflow answers {answer.status_code}: {text[:300]}", where=self.url)
        raise UserFault(f"Airflow refuses ({answer.status_code}): {text[:1000]}", where=self.url)

    # -- Dags and runs -----------------------------------------------------------------------------------------

    def dags(self) -> list[str]:
        """Return the ids of all Dags."""
        return [dag["dag_id"] for dag in self.call("GET", "/dags", params={"limit": 1000})["dags"]]

    def params(self, dag_id: str) -> dict[str, dict[str, Any]]:
        """Return a Dag's params: JSON Schema with ``default`` by name.

        Raises:
            NotFound: there is no such Dag; names those that there are.
        """
        try:
            details = self.call("GET", f"/dags/{quote(dag_id, safe='')}/details")
        except NotFound as error:
            from edgewright.cli.output import did_you_mean

            known = self.dags()
            hint = f"there are: {', '.join(known) or 'none yet'}{did_you_mean(dag_id, known)}"
            raise NotFound(f"Airflow has no Dag {dag_id}", where=self.url, hint=hint) from error
        params = details.get("params") or {}
        return {name: {**(p.get("schema") or {}), "default": p.get("value")} for name, p in params.items()}

    def import_errors(self) -> list[dict[str, Any]]:
        """Return what could not be parsed."""
        found: list[dict[str, Any]] = self.call("GET", "/importErrors")["import_errors"]
        return found

    def wait_for_dag(self, dag_id: str, timeout: float = 90) -> None:
        """Wait until Airflow knows a Dag.

        Raises:
            UserFault: its file has faults; shows them.
            Unavailable: it does not appear in time.
        """
        deadline = time.monotonic() + timeout
        while dag_id not in self.dags():
            errors = [error for error in self.import_errors() if dag_id in error["filename"]]
            if errors:
                raise UserFault(errors[0]["stack_trace"], where=errors[0]["filename"])
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
        path = f"{self._run_path(dag_id, run_id)}/taskInstances"
        found: list[dict[str, Any]] = self.call("GET", path, params={"limit": 1000})["task_instances"]
        return found

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """Return a task's log as text."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/logs/{max(1, try_number)}"
        document = self.call("GET", path, params={"full_content": True, "map_index": map_index})
        lines = []
        for entry in document.get("content", []):
            if isinstance(entry, str):
                lines.append(entry)
            elif not str(entry.get("event", "")).startswith("::"):
                lines.append(str(entry.get("event", "")))
        return "\n".join(lines)

    @staticmethod
    def _run_path(dag_id: str, run_id: str) -> str:
        return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"

    def follow(self, dag_id: str, run_id: str, timeout: float) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Yield the run and its tasks until the run has ended.

        Raises:
            Unavailable: it has not ended in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            run = self.run(dag_id, run_id)
            yield run, self.tasks(dag_id, run_id)
            if run["state"] in FINISHED:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"run {run_id} of {dag_id} has not ended after {timeout:.0f} s", where=self.url)
            time.sleep(0.5)

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
