from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from support import prediction_service as support
from support.prediction_service import ROWS, ReleaseMaker, ServiceProcess

from edgewright.errors import ConfigError
from edgewright.serving.access import Access, is_loopback
from edgewright.serving.faults import RequestFault

TOKEN = "a-long-random-text-for-tests"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


def test_administration_needs_the_token(tmp_path: Path, releases: ReleaseMaker, token_file: Path) -> None:
    releases.make(1)
    uri = f"file://{tmp_path / 'releases'}"
    with support.running(tmp_path / "home", uri, "--token-file", str(token_file)) as service:
        calls = [
            ("GET", "/admin/models"), ("PUT", "/admin/models/bracelet"), ("DELETE", "/admin/models/bracelet"),
            ("POST", "/admin/models/bracelet/rollback"),
        ]  # fmt: skip
        for method, path in calls:
            none = service.client.request(method, path)
            assert (none.status_code, none.json()["error"]["code"]) == (401, "unauthenticated")
            wrong = service.client.request(method, path, headers={"authorization": f"Bearer {TOKEN}x"})
            assert (wrong.status_code, wrong.json()["error"]["code"]) == (403, "forbidden")
        right = {"authorization": f"Bearer {TOKEN}"}
        loaded = service.client.put("/admin/models/bracelet", json={"version": "1"}, headers=right)
        assert loaded.status_code == 200
        assert service.predict(ROWS).status_code == 200
        assert TOKEN not in service.log.read_text()


def test_without_a_token_only_this_machine_administers(service: ServiceProcess) -> None:
    rebound = service.client.get("/admin/models", headers={"host": "evil.example"})
    assert rebound.status_code == 403
    forged = service.client.post("/admin/models/x/rollback", headers={"origin": "https://evil.example"})
    assert forged.status_code == 403
    own = service.client.get("/admin/models", headers={"origin": service.url})
    assert own.status_code == 200


def start(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgewright.serving", "--port", "0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_an_open_address_without_a_token_is_refused(tmp_path: Path) -> None:
    done = start("--host", "0.0.0.0", "--home", str(tmp_path), "--tracking-uri", "file:///x")
    assert done.returncode == 1
    assert "needs a token" in done.stderr


def test_what_cannot_start_says_why(tmp_path: Path, service: ServiceProcess) -> None:
    short = tmp_path / "short"
    short.write_text("abc")
    done = start("--home", str(tmp_path), "--tracking-uri", "file:///x", "--token-file", str(short))
    assert (done.returncode, "at least 16" in done.stderr) == (1, True)
    done = start("--home", str(service.home), "--tracking-uri", "file:///x")
    assert (done.returncode, "another service uses this home folder" in done.stderr) == (75, True)
    port = service.url.rpartition(":")[2]
    done = start("--home", str(tmp_path / "b"), "--tracking-uri", "file:///x", "--port", port)
    assert (done.returncode, "cannot listen on 127.0.0.1" in done.stderr) == (69, True)


def test_a_state_that_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"version": 1, "models": [')
    done = start("--home", str(tmp_path), "--tracking-uri", "file:///x")
    assert done.returncode == 70
    assert "the remembered state cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_rules_beyond_loopback() -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        Access(loopback=False)
    access = Access(admin_token=TOKEN, predict_token="p" * 16, loopback=False)
    with pytest.raises(RequestFault) as caught:
        access.check_predict({})
    assert caught.value.status == 401
    access.check_predict({"authorization": "Bearer " + "p" * 16})
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    access.check_predict({"authorization": f"Basic {basic}"})
    with pytest.raises(RequestFault) as caught:
        access.check_admin({"authorization": "Bearer " + "p" * 16})
    assert caught.value.status == 403
    Access(admin_token=TOKEN, loopback=False, open_predictions=True).check_predict({})


@pytest.mark.parametrize(
    ("host", "answer"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)]
)
def test_loopback(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer
