"""One real local stack for all tests of this folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stack_support import ROOT, Stack
from support.mail import mail_server


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start the stack on an empty home, and stop it at the end."""
    folder = tmp_path_factory.mktemp("stack")
    dags = folder / "dags"
    shutil.copytree(ROOT / "dags" / "bracelet", dags / "bracelet", ignore=shutil.ignore_patterns("__pycache__"))
    found = Stack(folder / "home", dags, {})
    mail = mail_server(found.mails)
    os.environ["AIRFLOW_CONN_SMTP_DEFAULT"] = json.dumps({
        "conn_type": "smtp", "host": "127.0.0.1", "port": mail.port,
        "extra": {"disable_ssl": True, "disable_tls": True, "from_email": "ml@example.org"},
    })  # fmt: skip
    try:
        found.run("up", "--dags", str(dags), timeout=300)
        found.status = json.loads(found.run("status", "--json").stdout)
        yield found
    finally:
        found.run("down", check=False)
        mail.stop()
        del os.environ["AIRFLOW_CONN_SMTP_DEFAULT"]


@pytest.fixture(scope="session")
def first_run(stack: Stack) -> dict[str, Any]:
    """The summary of the first run of ``bracelet`` on that stack."""
    return stack.trigger("--run-id", "first")
