"""``edgewright trigger`` against a server that speaks Airflow's REST API as 3.3 does (a real one: tests/stack)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from edgewright.cli.airflow_api import AirflowApi
from edgewright.cli.main import cli

RUN = "/api/v2/dags/bracelet/dagRuns/one"


class Airflow(ThreadingHTTPServer):
    """Answers as Airflow would, and remembers what it was asked.

    Attributes:
        asked: Method, path and body of each request.
        paused: Whether the Dag is paused.
        away: How many answers are still 503.
        tasks: Number of mapped task instances; the last fails.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, Any]] = []
        self.paused = False
        self.away = 0
        self.tasks = 3
        self.polls = 0
        self.token = "first"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if path == "/api/v2/dags/bracelet/details":
            alpha = {"value": 0.001, "schema": {"type": "number", "minimum": 0}}
            return 200, {"dag_id": "bracelet", "is_paused": self.paused, "params": {"alpha": alpha}}
        if path == "/api/v2/dags":
            return 200, self._page(
                "dags", [{"dag_id": f"dag{n}"} for n in range(150)] + [{"dag_id": "bracelet"}], query
            )
        if path == "/api/v2/importErrors":
            return 200, {"import_errors": [], "total_entries": 0}
        if path == "/api/v2/dags/bracelet" and method == "PATCH":
            self.paused = body["is_paused"]
            return 200, {}
        if path == "/api/v2/dags/bracelet/dagRuns" and method == "POST":
            return 200, {"dag_run_id": body.get("dag_run_id", "one")}
        if path == RUN:
            self.polls += 1
            if self.away > 0:
                self.away -= 1
                return 503, {"detail": "database is locked"}
            return 200, {"state": "running" if self.polls < 2 else "failed", "duration": 1.5}
        if path == f"{RUN}/taskInstances":
            return 200, self._page("task_instances", [self._task(n) for n in range(self.tasks)], query)
        return 404, {"detail": f"The path was not found: {path}"}

    def _page(self, key: str, rows: list[Any], query: dict[str, list[str]]) -> dict[str, Any]:
        offset, limit = int(query["offset"][0]), min(int(query["limit"][0]), 100)
        return {key: rows[offset : offset + limit], "total_entries": len(rows)}

    def _task(self, number: int) -> dict[str, Any]:
        state = "failed" if number == self.tasks - 1 else "success"
        return {
            "task_id": "part", "map_index": number, "state": state, "duration": 0.5, "try_number": 1,
            "end_date": f"2026-01-01T00:00:{number % 60:02d}Z",
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: Airflow

    def _do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        parts = urlsplit(self.path)
        self.server.asked.append((self.command, parts.path, body))
        if parts.path == "/auth/token":
            right = body == {"username": "admin", "password": "right"}
            self._send(*((201, {"access_token": self.server.token}) if right else (401, {"detail": "no"})))
        elif self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._send(401, {"detail": "Not authenticated"})
        elif "/logs/" in parts.path:
            lines = [{"event": f"line {n}"} for n in range(200_000)] + [{"event": "::endgroup::"}, {"event": "the end"}]
            self._send_bytes(200, "\n".join(map(json.dumps, lines)).encode())
        else:
            self._send(*self.server.answer(self.command, parts.path, parse_qs(parts.query), body))

    do_GET = do_POST = do_PATCH = _do

    def _send(self, status: int, document: Any) -> None:
        self._send_bytes(status, json.dumps(document).encode())

    def _send_bytes(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path))
    monkeypatch.setenv("EDGEWRIGHT_AIRFLOW_USER", "admin")
    monkeypatch.setenv("EDGEWRIGHT_AIRFLOW_PASSWORD", "right")
    monkeypatch.delenv("EDGEWRIGHT_AIRFLOW_TOKEN", raising=False)
    with Airflow() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def trigger(airflow: Airflow, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["trigger", "bracelet", "--url", airflow.url, *arguments])


def posted(airflow: Airflow) -> list[Any]:
    return [body for method, path, body in airflow.asked if method == "POST" and path.endswith("/dagRuns")]


def test_a_run_is_started_with_typed_params_and_a_null_date(airflow: Airflow) -> None:
    done = trigger(airflow, "--param", "alpha=1", "--run-id", "mine", "--no-cache", "--json")
    assert done.exit_code == 0, done.output
    assert posted(airflow) == [
        {"logical_date": None, "conf": {"alpha": 1, "edgewright": {"cache": "off"}}, "dag_run_id": "mine"}
    ]
    assert json.loads(done.stdout)["url"] == f"{airflow.url}/dags/bracelet/runs/mine"


@pytest.mark.parametrize(
    ("param", "message"),
    [("alfa=1", 'did you mean "alpha"'), ("alpha=much", "not a number"), ("alpha=-1", "less than the minimum")],
)
def test_a_wrong_param_starts_nothing(airflow: Airflow, param: str, message: str) -> None:
    done = trigger(airflow, "--param", param)
    assert done.exit_code == 1
    assert message in done.stderr
    assert posted(airflow) == []


def test_a_paused_dag_is_said_and_can_be_unpaused(airflow: Airflow) -> None:
    airflow.paused = True
    done = trigger(airflow)
    assert done.exit_code == 1
    assert "bracelet is paused" in done.stderr
    assert posted(airflow) == []
    assert trigger(airflow, "--unpause").exit_code == 0
    assert not airflow.paused
    assert len(posted(airflow)) == 1


def test_waiting_shows_the_tasks_and_the_end_of_the_failed_ones_log(airflow: Airflow) -> None:
    airflow.tasks = 120  # more than one page
    airflow.away = 1  # and an answer that does not come at once
    done = trigger(airflow, "--wait")
    assert done.exit_code == 1
    assert done.stderr.count(" success in 0.5 s") == 119
    assert "[120/120] part[119]" in done.stderr
    assert "the end of the log of task part, try 1" in done.stderr
    assert done.stderr.count("line 1999") == 39  # the last 40 lines: these, and "the end"
    assert "the end\n" in done.stderr
    assert "::endgroup::" not in done.stderr
    assert "error: run one of bracelet failed: part" in done.stderr


def test_a_wrong_login_says_where_it_is_given(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_AIRFLOW_PASSWORD", "wrong")
    done = trigger(airflow)
    assert done.exit_code == 1
    assert "refuses the login of admin" in done.stderr
    assert "EDGEWRIGHT_AIRFLOW_PASSWORD" in done.stderr
    assert "wrong" not in done.stderr


def test_a_token_that_lapsed_is_said(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_AIRFLOW_TOKEN", "old")
    monkeypatch.delenv("EDGEWRIGHT_AIRFLOW_USER")
    done = trigger(airflow)
    assert done.exit_code == 1
    assert "does not accept the token" in done.stderr


def test_a_token_that_lapses_meanwhile_is_renewed(airflow: Airflow) -> None:
    api = AirflowApi(airflow.url, "admin", "right")
    assert api.params("bracelet")["alpha"]["default"] == 0.001
    airflow.token = "second"
    assert len(api.dags()) == 151


def test_no_airflow_is_another_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path))
    done = CliRunner().invoke(cli, ["trigger", "bracelet"])
    assert done.exit_code == 69
    assert "start it: edgewright up" in done.stderr
    done = CliRunner().invoke(cli, ["trigger", "bracelet", "--url", "airflow.example.org"])
    assert done.exit_code == 1
    assert "not an address of Airflow" in done.stderr
