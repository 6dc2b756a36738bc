"""``edgewright doctor`` on real installations: whole, broken, with services that are away."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgewright.cli.doctor import locked_versions
from edgewright.cli.main import cli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(made))
    for name in ("EDGEWRIGHT_STORE", "EDGEWRIGHT_TRACKING_URI", "EDGEWRIGHT_AIRFLOW_URL"):
        monkeypatch.delenv(name, raising=False)
    return made


def ask(*arguments: str) -> tuple[Result, dict[str, dict[str, Any]]]:
    done = CliRunner().invoke(cli, ["doctor", "--json", *arguments], standalone_mode=False)
    return done, {finding["name"]: finding for finding in json.loads(done.stdout)}


def test_a_new_installation_has_no_failure(home: Path) -> None:
    done, findings = ask()
    assert done.exit_code == 0
    assert {"python", "libraries", "lock", "provider", "store", "disk", "clock", "registry", "ports"} <= set(findings)
    assert not [finding for finding in findings.values() if finding["verdict"] == "fail"]
    assert findings["airflow"]["verdict"] == "warn"
    assert "edgewright up" in findings["airflow"]["mend"]
    assert not list((home / "store").rglob("*.json")), "it leaves nothing behind"


def test_people_see_what_to_do(home: Path) -> None:
    text = CliRunner().invoke(cli, ["doctor"], standalone_mode=False).stdout
    assert "warn  airflow    no local stack runs\n" in text
    assert "mend: edgewright up starts it\n" in text


def test_settings_that_cannot_be_read_are_a_failure(home: Path) -> None:
    (home / "installation.yaml").write_text("stor: /x\n")
    done, findings = ask()
    assert done.exit_code == 1
    assert findings["settings"]["verdict"] == "fail"
    assert "stor" in findings["settings"]["text"]
    assert "installation.yaml" in findings["settings"]["mend"]
    assert findings["python"]["verdict"] == "ok"


def test_a_store_that_cannot_be_written_is_a_failure_and_the_rest_is_looked_at(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (home / "installation.yaml").write_text(f"store: file://{tmp_path}/file/store\n")
    done, findings = ask()
    assert done.exit_code == 1
    assert findings["store"]["verdict"] == "fail"
    assert findings["registry"]["verdict"] == "ok"


def test_a_service_elsewhere_that_is_away_is_a_failure(home: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (home / "installation.yaml").write_text(f"services: {{hospital: {{url: 'http://localhost:{port}'}}}}\n")
    done, findings = ask()
    assert done.exit_code == 1
    assert findings["services"]["text"] == f"no answer: hospital at http://localhost:{port}"


def test_what_a_stopped_stack_had_is_a_warning(home: Path) -> None:
    (home / "installation.yaml").write_text(
        "tracking_uri: http://127.0.0.1:5000\nservices: {bracelet: {url: 'http://127.0.0.1:8500'}}\n"
    )
    done, findings = ask()
    assert done.exit_code == 0
    assert findings["registry"]["verdict"] == findings["services"]["verdict"] == "warn"


def test_a_lock_of_several_platforms_is_read_for_this_one() -> None:
    lock = (
        "numpy==2.4.6 ; python_full_version < '3.12' \\\n    --hash=sha256:00\n"
        "numpy==9.9.9 ; python_full_version >= '9' \\\n    --hash=sha256:11\n"
        "pywin32==1 ; sys_platform == 'win32' \\\n    --hash=sha256:22\n"
        "click==8.5.0 \\\n    --hash=sha256:33\n"
    )
    assert locked_versions(lock)["click"] == "8.5.0"
    assert locked_versions(lock).get("numpy") != "9.9.9"
    assert "pywin32" not in locked_versions(lock)
