"""Notifiers against servers that speak the real protocols: SMTP, Slack's web API, Kafka."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.mail import mail_server
from support.servers import kafka  # noqa: F401 (a fixture)

from edgewright.operators.notify import Told
from edgewright.spec import parse_pipeline

GATES = [{"metric": "accuracy", "operator": ">=", "limit": 0.9, "value": 0.8, "passed": False, "note": ""}]


def told(notify: str, tmp_path: Path) -> Told:
    text = f"dag_id: heart\nnotify:\n{notify}\ntasks:\n  - {{id: t}}\n  - {{id: q, uses: evaluate, with: {WITH}}}\n"
    text += "  - {id: m, uses: train, with: {data: {$x: d}, entry: m.py:f}}\n"
    text += "  - {id: d, uses: ingest, with: {source: 's3://a/b.csv', label: y, split: {test: 0.2}}}\n"
    text += "  - {id: r, uses: publish, with: {models: [{$x: m}], name: heart}}\n"
    (tmp_path / "m.py").write_text("def f(data): ...\n")
    return Told.of(parse_pipeline(text, tmp_path / "pipeline.yaml"))


WITH = "{model: {$x: m}, data: {$x: d}}"


def context(task_id: str = "q", result: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    task = SimpleNamespace(task_id=task_id, result=result)
    return {"task": task, "ti": SimpleNamespace(task_id=task_id), "run_id": "manual__1", **more}


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Return the mails that a mail server on loopback took."""
    taken: list[Any] = []
    controller = mail_server(taken)
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps({
        "conn_type": "smtp", "host": "127.0.0.1", "port": controller.port,
        "extra": {"disable_ssl": True, "disable_tls": True, "from_email": "ml@example.org"},
    }))  # fmt: skip
    try:
        yield taken
    finally:
        controller.stop()


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Return the messages that an API like Slack's took."""
    taken: list[dict[str, Any]] = []

    class Api(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            taken.append({"path": self.path, "token": self.headers["Authorization"], "body": body})
            answer = json.dumps({"ok": True}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_API_DEFAULT", json.dumps({
        "conn_type": "slack", "password": "xoxb-secret",
        "extra": {"base_url": f"http://127.0.0.1:{server.server_port}/api/"},
    }))  # fmt: skip
    try:
        yield taken
    finally:
        server.shutdown()
        thread.join()


def test_a_failed_task_is_told_by_mail(mails: list[Any], tmp_path: Path) -> None:
    callbacks = told("  - email: {to: [ops@example.org, me@example.org]}", tmp_path)
    (callback,) = callbacks.tasks[""]["on_failure_callback"]
    callback(context("t", exception=ValueError("no <disk>")))
    (mail,) = mails
    assert mail["To"] == "ops@example.org,me@example.org" or mail["To"] == "ops@example.org, me@example.org"
    assert mail["Subject"] == "heart: task t failed: no <disk>"
    assert "no &lt;disk&gt;" in mail.get_payload()[0].get_payload(decode=True).decode()


def test_a_refused_gate_is_told_once_and_only_where_it_is_asked_for(mails: list[Any], tmp_path: Path) -> None:
    both = told("  - email: {to: a@example.org, subject: '{{ event }}'}", tmp_path)
    (callback,) = both.tasks["evaluate"]["on_failure_callback"]
    refused = {"gates": GATES, "metrics": {"accuracy": 0.8}}
    callback(context(result=refused, exception=ValueError("accuracy = 0.8, not >= 0.9")))
    assert [mail["Subject"] for mail in mails] == ["gate"]
    only_gates = told("  - {email: {to: a@example.org}, when: gate}", tmp_path)
    assert set(only_gates.tasks) == {"evaluate"}
    only_gates.tasks["evaluate"]["on_failure_callback"][0](context(exception=ValueError("disk")))
    assert len(mails) == 1
    only_failures = told("  - {email: {to: a@example.org, subject: '{{ event }}'}, when: failure}", tmp_path)
    only_failures.tasks["evaluate"]["on_failure_callback"][0](context(result=refused))
    assert [mail["Subject"] for mail in mails] == ["gate", "failure"]


def test_a_run_that_times_out_is_told_and_a_failed_task_is_not_told_twice(mails: list[Any], tmp_path: Path) -> None:
    (callback,) = told("  - email: {to: a@example.org}", tmp_path).dag["on_failure_callback"]
    callback({"run_id": "r", "reason": "task_failure"})
    assert mails == []
    callback({"run_id": "r", "reason": "timed_out"})
    assert mails[0]["Subject"] == "heart: the run failed: timed_out"


def test_slack_gets_the_message_of_a_template(slack: list[dict[str, Any]], tmp_path: Path) -> None:
    notify = "  - {slack: {channel: '#ml', text: 'v{{ version }} of {{ model }}'}, when: [publish, success]}"
    callbacks = told(notify, tmp_path)
    result = {"tags": {"model_name": "heart", "model_version": "7", "alias": "champion"}}
    callbacks.tasks["publish"]["on_success_callback"][0](context("r", result))
    (message,) = slack
    assert message["path"] == "/api/chat.postMessage"
    assert message["token"] == "Bearer xoxb-secret"
    assert "v7+of+heart" in message["body"] or "v7 of heart" in message["body"]
    callbacks.dag["on_success_callback"][0]({"run_id": "r"})
    assert len(slack) == 2
    callbacks.tasks["publish"]["on_success_callback"][0](context("r", {"tags": {"registration": "reused"}}))
    assert len(slack) == 2


def test_kafka_gets_json_that_programs_read(kafka: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    from confluent_kafka import Consumer

    servers = {"bootstrap.servers": kafka.bootstrap}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps({"conn_type": "kafka", "extra": servers}))
    callbacks = told("  - {kafka: {topic: models}, when: publish}", tmp_path)
    result = {"tags": {"model_name": "heart", "model_version": "7"}, "metrics": {"variants": 2.0}}
    callbacks.tasks["publish"]["on_success_callback"][0](context("r", result))
    consumer = Consumer({**servers, "group.id": "notify", "auto.offset.reset": "earliest"})
    consumer.subscribe(["models"])
    message = None
    for _ in range(30):
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            break
    consumer.close()
    assert message is not None
    assert message.key() == b"heart"
    said = json.loads(message.value())
    assert {key: said[key] for key in ("event", "dag_id", "run_id", "task_id", "model", "version", "metrics")} == {
        "event": "publish", "dag_id": "heart", "run_id": "manual__1", "task_id": "r", "model": "heart", "version": "7",
        "metrics": {"variants": 2.0},
    }  # fmt: skip


def test_a_server_that_is_away_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": 9, "extra": {"disable_ssl": True, "retry_limit": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    callbacks = told("  - email: {to: a@example.org, from: b@example.org}", tmp_path)
    callbacks.tasks[""]["on_failure_callback"][0](context("t", exception=ValueError("x")))
    assert "nobody was told by email" in caplog.text


def test_a_notifier_of_the_pipelines_own_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "own_notices.py").write_text(
        "from pathlib import Path\n"
        "class ToFile:\n"
        "    def __init__(self, path): self.path = path\n"
        "    def __call__(self, context): Path(self.path).write_text(context['message'])\n"
    )
    place = tmp_path / "said.txt"
    entries = told(f"  - {{uses: own_notices.ToFile, with: {{path: {place}}}, when: failure}}\n", tmp_path)
    (callback,) = entries.tasks["train"]["on_failure_callback"]
    callback(context("m", exception=ValueError("no rows")))
    assert place.read_text() == "heart: task m failed: no rows"
