"""The stack's own parts: ports, processes by PID, what is left after a kill. With real processes, without Airflow."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from edgewright.cli.stack import airflow
from edgewright.cli.stack.health import PartFailed, health, wait_until_healthy
from edgewright.cli.stack.local import LocalStack, exclusive
from edgewright.cli.stack.ports import PortClaims
from edgewright.cli.stack.processes import listening, start, stop, tail
from edgewright.cli.stack.secrets import Secrets
from edgewright.cli.stack.services import service_names
from edgewright.cli.stack.signals import interruptible, uninterrupted
from edgewright.cli.stack.state import MARK, Part, Running, StackState
from edgewright.cli.up import watch
from edgewright.errors import Busy, ConfigError
from edgewright.installation import Installation

#: A process that forks another one and then waits; ends at SIGTERM.
PARENT = "import os,time\nif os.fork() == 0:\n    time.sleep(300)\ntime.sleep(300)"
#: A process whose child leaves its session, as a task's own daemon would.
RUNAWAY = (
    "import subprocess,sys,time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True)\n"
    "time.sleep(300)"
)
#: A process that ignores SIGTERM.
STUBBORN = (
    "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(300)"
)
SLEEPER = "import time; time.sleep(300)"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StackState]:
    """A stack without parts; whatever a test adds to it is ended."""
    made = StackState(home=str(tmp_path), dags=str(tmp_path))
    yield made
    stop(made, grace=0.5)


def begin(state: StackState, code: str, name: str = "part", port: int | None = None) -> Part:
    command, home = [sys.executable, "-c", code], Path(state.home)
    part = start(name, command, {**os.environ, MARK: state.home}, home / f"{name}.log", port=port)
    state.parts.append(part)
    return part


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


# -- ports -------------------------------------------------------------------------------------------------------------


def test_a_busy_port_gives_the_next_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        claims = PortClaims(tmp_path)
        with claims.held():
            assert claims.take(port) > port


def test_a_port_that_was_only_just_left_is_free(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server.accept()[0].close()
        client.close()
    claims = PortClaims(tmp_path)
    with claims.held():
        assert claims.take(port) == port


def test_two_stacks_that_start_together_get_different_ports(tmp_path: Path) -> None:
    code = (
        "import sys,time\nfrom pathlib import Path\nfrom edgewright.cli.stack.ports import PortClaims\n"
        "claims = PortClaims(Path(sys.argv[1]))\nprint(claims.take(28500), claims.take(28500), flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        ports = [port for other in others if other.stdout for port in other.stdout.readline().split()]
        assert len(ports) == len(set(ports)) == 6
        others[0].kill()
        others[0].wait()
        claims = PortClaims(tmp_path)
        with claims.held():
            assert str(claims.take(int(ports[0]))) == ports[0]  # what a killed stack had claimed is free again
    finally:
        for other in others:
            other.kill()
            other.wait()


# -- processes ---------------------------------------------------------------------------------------------------------


def test_stopping_ends_what_a_part_has_forked(state: StackState) -> None:
    begin(state, PARENT)
    wait_for(lambda: len(state.members()) == 2)
    members = state.members()
    assert stop(state, grace=5) == []
    assert all(is_over(process) for process in members)


def test_orphans_of_a_killed_part_are_found_and_ended(state: StackState) -> None:
    part = begin(state, PARENT)
    wait_for(lambda: len(state.members()) == 2)
    os.kill(part.pid, signal.SIGKILL)
    os.waitpid(part.pid, 0)
    assert part.process() is None
    orphans = state.members()
    assert len(orphans) == 1
    stop(state, grace=1)
    assert is_over(orphans[0])


def test_what_left_its_session_is_found_and_ended(state: StackState) -> None:
    begin(state, RUNAWAY)
    wait_for(lambda: len(state.members()) == 2)
    members = state.members()
    state.parts.clear()  # even if nothing is known of its parts any more
    assert len(state.members()) == 2
    stop(state, grace=1)
    assert all(is_over(process) for process in members)


def test_what_does_not_end_is_killed(state: StackState) -> None:
    part = begin(state, STUBBORN)
    wait_for(lambda: "ready" in tail(Path(part.log)))
    assert stop(state, grace=0.5) == [part.pid]
    assert part.process() is None


def test_what_others_need_ends_last(state: StackState) -> None:
    code = (
        "import signal,sys,time\n"
        "def end(*_):\n    time.sleep(0.3); open(sys.argv[1], 'a').write(sys.argv[2] + '\\n'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('ready', flush=True)\ntime.sleep(300)"
    )
    order = Path(state.home) / "order"
    for name in ("mlflow", "api-server", "scheduler"):
        part = start(
            name,
            [sys.executable, "-c", code, str(order), name],
            {**os.environ, MARK: state.home},
            Path(f"{order}-{name}"),
        )
        state.parts.append(part)
        wait_for(lambda part=part: "ready" in tail(Path(part.log)))
    stop(state)
    assert order.read_text().split() == ["scheduler", "api-server", "mlflow"]


def test_a_pid_that_belongs_to_somebody_else_is_not_touched(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    try:
        state = StackState(home=str(tmp_path), dags="", parts=[Part(bystander.pid, 1.0, name="part")])
        assert state.running() == []
        assert state.members() == []
        stop(state, grace=0.5)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_log_that_has_grown_is_set_aside(state: StackState) -> None:
    log = Path(state.home) / "part.log"
    log.write_bytes(b"x" * (6 << 20))
    begin(state, "print('new')")
    wait_for(lambda: tail(log).strip() == "new")
    assert log.with_suffix(".log.1").stat().st_size == 6 << 20


# -- the state ---------------------------------------------------------------------------------------------------------


def test_the_state_survives_a_damaged_file(tmp_path: Path) -> None:
    state = StackState(home=str(tmp_path), dags="/dags", parts=[Part(1, 2.0, name="a")], owner=Running.me())
    state.save()
    assert StackState.load(tmp_path) == state
    (tmp_path / "stack.json").write_text("{")
    assert StackState.load(tmp_path) is None


def test_a_stack_whose_owner_was_killed_is_orphaned(state: StackState) -> None:
    owner = begin(state, SLEEPER)
    state.owner = Running(owner.pid, owner.created)
    assert not state.is_orphaned()
    os.kill(owner.pid, signal.SIGKILL)
    os.waitpid(owner.pid, 0)
    assert state.is_orphaned()


def test_down_ends_a_half_started_stack_also_without_its_file(state: StackState, tmp_path: Path) -> None:
    part = begin(state, SLEEPER)
    said: list[str] = []
    assert LocalStack(tmp_path, said.append).down()
    assert part.process() is None
    assert "stopping the stack" in said
    assert not LocalStack(tmp_path, said.append).down()


# -- who may do what ---------------------------------------------------------------------------------------------------


def test_two_commands_at_once_do_not_mix(tmp_path: Path) -> None:
    first, second = (LocalStack(tmp_path, lambda line: None) for _ in range(2))
    with first.lock(), pytest.raises(Busy, match=f"PID {os.getpid()}"), second.lock():
        pass


def test_a_killed_holder_holds_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys,time\nfrom pathlib import Path\nfrom edgewright.cli.stack.local import exclusive\n"
        "with exclusive(Path(sys.argv[1]), 'waits', ''):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    file = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Busy, match=f"PID {holder.pid}"), exclusive(file, "waits", ""):
        pass
    holder.kill()
    holder.wait()
    with exclusive(file, "waits", ""):
        assert file.read_text() == str(os.getpid())


def test_no_folder_of_pipelines_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder of pipelines"):
        LocalStack(tmp_path / "home", lambda line: None).up(tmp_path / "none")


def test_a_signal_to_end_is_an_interrupt_and_stopping_is_not_interrupted() -> None:
    said: list[str] = []

    def work() -> None:
        with interruptible():
            with uninterrupted(said.append):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert said == ["still stopping, a moment"] * 2


def test_who_watches_is_told_what_ended(state: StackState) -> None:
    part = begin(state, "print('out of luck')")
    wait_for(lambda: part.process() is None)
    state.save()
    with pytest.raises(PartFailed, match="part ended(.|\n)*out of luck"):
        watch(state)
    state.stopping = True
    state.save()
    watch(state)  # nothing broke: somebody stops it


# -- health ------------------------------------------------------------------------------------------------------------


class _Mlflow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_part_that_ended_is_named_with_its_log(state: StackState) -> None:
    begin(state, "print('no such table'); raise SystemExit(3)", "scheduler")
    with pytest.raises(PartFailed, match="scheduler ended(.|\n)*no such table"):
        wait_until_healthy(state, lambda line: None, 10)


def test_a_part_that_is_late_is_named(state: StackState) -> None:
    begin(state, SLEEPER, "triggerer")
    with pytest.raises(PartFailed, match="triggerer is not healthy after 1 s"):
        wait_until_healthy(state, lambda line: None, 1)


def test_an_answer_of_another_program_does_not_count(state: StackState) -> None:
    with HTTPServer(("127.0.0.1", 0), _Mlflow) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        begin(state, SLEEPER, "mlflow", port=other.server_port)
        with pytest.raises(PartFailed, match=f"does not listen on port {other.server_port}"):
            wait_until_healthy(state, lambda line: None, 10)
        other.shutdown()


def test_a_proxy_of_the_environment_is_not_asked(state: StackState, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    port = PortClaims(Path(state.home)).take(28600)
    code = (
        "from http.server import *\nclass H(SimpleHTTPRequestHandler):\n    def do_GET(self):\n"
        f"        self.send_response(200); self.end_headers()\nHTTPServer(('127.0.0.1', {port}), H).serve_forever()"
    )
    begin(state, code, "mlflow", port=port)
    wait_until_healthy(state, lambda line: None, 10)
    assert health(state) == {"mlflow": "healthy"}
    assert listening(state) == {port: {"127.0.0.1"}}


# -- what the parts are told -------------------------------------------------------------------------------------------


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    first = Secrets.of(tmp_path)
    assert Secrets.of(tmp_path) == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len(first.jwt) >= 64
    assert len(set(first.passwords.values())) == 2


def test_airflow_gets_nothing_of_another_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("NO_PROXY", "example.org")
    variables = airflow.environment(tmp_path, tmp_path / "dags", 8080, Secrets.of(tmp_path), schedules=False)
    assert variables["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert variables["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert variables["AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE"] == "False"
    assert variables["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    bundles = json.loads(variables["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert bundles[0]["kwargs"]["src"] == str(tmp_path / "dags")


def test_what_an_administrator_wrote_stays(state: StackState, tmp_path: Path) -> None:
    (tmp_path / "installation.yaml").write_text(
        "store: s3://bucket/prefix\nservices: {hospital: {url: 'https://models.example.org', token_env: TOKEN}}\n"
    )
    state.urls = {
        "airflow": "http://127.0.0.1:1",
        "mlflow": "http://127.0.0.1:2",
        "service wrist": "http://127.0.0.1:3",
    }
    LocalStack(tmp_path, lambda line: None)._write_installation(state)
    written = Installation.load({"EDGEWRIGHT_HOME": str(tmp_path)})
    assert written.store == "s3://bucket/prefix"
    assert written.tracking_uri == "http://127.0.0.1:2"
    assert set(written.services) == {"hospital", "wrist"}
    assert written.services["hospital"].token_env == "TOKEN"


DEPLOYS = """\
dag_id: p
tasks:
  - {id: o, uses: ingest, with: {source: 'file:///x.csv', label: y, split: {test: 0.25}}}
  - {id: t, uses: train, with: {data: {$x: o}, entry: 'm.py:fit'}}
  - {id: m, uses: quantize, with: {model: {$x: t}, data: {$x: o}}}
  - {id: a, uses: publish, with: {models: [{$x: m}], name: m}}
  - {id: b, uses: deploy, with: {release: {$x: a}, to: {service: wrist}}}
"""


def test_services_are_those_that_pipelines_deploy_to(tmp_path: Path) -> None:
    assert service_names(tmp_path) == ["default"]
    (tmp_path / "p.yaml").write_text(DEPLOYS.replace("uses: train", "uses: trian"))
    assert service_names(tmp_path) == ["default"]  # a document with faults does not count
    (tmp_path / "p.yaml").write_text(DEPLOYS)
    (tmp_path / "m.py").write_text("def fit(data): ...\n")
    assert service_names(tmp_path) == ["wrist"]
    assert service_names(tmp_path, ["own"]) == ["own", "wrist"]
    with pytest.raises(ConfigError, match="not a name of a service"):
        service_names(tmp_path, ["../out"])
