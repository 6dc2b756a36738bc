"""Webhooks of a real MLflow make registry triggers look at once."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.mlflow_server import free_port, mlflow_server

from edgewright.artifacts import ArtifactStore
from edgewright.spec.triggers import RegistryTrigger
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.registry_events import RegistrySource
from edgewright.streams.webhooks import HINT, MAX_BODY, HintWatch, Refused, check

SECRET = "0123456789abcdef-secret"


def signed(body: bytes, secret: str = SECRET, moment: int | None = None) -> dict[str, str]:
    delivery, at = str(uuid.uuid4()), str(int(time.time()) if moment is None else moment)
    digest = hmac.new(secret.encode(), f"{delivery}.{at}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"X-MLflow-Delivery-Id": delivery, "X-MLflow-Timestamp": at, "X-MLflow-Signature": signature}


@contextlib.contextmanager
def receiver(store: Path) -> Iterator[str]:
    """Run the command, and return its address."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "edgewright.cli.main",
        "webhook",
        "mlflow",
        "--port",
        str(port),
        "--store",
        str(store),
    ]
    process = subprocess.Popen(command, env={**os.environ, "EDGEWRIGHT_WEBHOOK_SECRET": SECRET})
    url, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + 120
    try:
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline, "it does not answer"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}ping", timeout=60):
                break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def wait_for_hint(store: ArtifactStore, other: str | None = None) -> str:
    deadline = time.monotonic() + 120
    while (found := (store.read_json(HINT) or {}).get("id")) in (None, other):
        assert time.monotonic() < deadline, "no hint was written"
        time.sleep(0.1)
    return str(found)


def next_batch(source: RegistrySource, seconds: float) -> Batch | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (batch := source.poll(0.2)) is not None:
            return batch
    return None


def test_a_webhook_of_mlflow_makes_the_trigger_look_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    store = ArtifactStore(tmp_path / "store")
    with receiver(tmp_path / "store") as url, mlflow_server(tmp_path / "mlflow") as server:
        client = MlflowClient(server.uri)
        client.create_registered_model("heart")
        events = ["model_version.created", "model_version_alias.created"]
        client.create_webhook("edgewright", url, events, secret=SECRET)
        config = RegistryTrigger.model_validate({"model": "heart", "every": "1h", "webhook": True})
        source = RegistrySource(config, server.uri, BatchLog(store, "pipe", "registry-heart"))
        deaf = RegistrySource(
            config.model_copy(update={"webhook": False}), server.uri, BatchLog(store, "pipe", "registry-deaf")
        )
        assert source.poll(0) is None
        assert deaf.poll(0) is None
        client.create_model_version("heart", "s3://x/1")
        batch = next_batch(source, 120)
        assert batch is not None
        assert batch.details["event"]["version"] == "1"
        assert deaf.poll(0) is None  # its hour is not over
        first = wait_for_hint(store)
        client.set_registered_model_alias("heart", "champion", "1")
        wait_for_hint(store, first)
        assert next_batch(source, 3) is None  # it has looked, and there is no new version


def test_what_is_not_signed_is_refused(tmp_path: Path) -> None:
    body = b'{"entity": "model_version", "action": "created", "data": {"name": "heart"}}'
    store = ArtifactStore(tmp_path / "store")
    with receiver(tmp_path / "store") as url:
        assert post(url, body, {}) == 401
        assert post(url, body, signed(body, "another secret")) == 401
        assert post(url, body + b" ", signed(body)) == 401
        assert post(url, body, signed(body, moment=int(time.time()) - 3600)) == 401
        large = b"x" * (MAX_BODY + 1)
        assert post(url, large, signed(large)) == 413
        assert store.read_json(HINT) is None
        headers = signed(body)
        assert post(url, body, headers) == 202
        assert wait_for_hint(store) == headers["X-MLflow-Delivery-Id"]
        with urllib.request.urlopen(f"{url}ping", timeout=60) as answer:
            assert answer.read() == b'{"taken":1,"refused":5}'


def test_the_check_itself() -> None:
    body = b"{}"
    headers = signed(body, moment=1000)
    assert check(SECRET.encode(), headers, body, 1200) == headers["X-MLflow-Delivery-Id"]
    for now in (600, 1400):
        with pytest.raises(Refused, match="not now"):
            check(SECRET.encode(), headers, body, now)
    for name in headers:
        with pytest.raises(Refused, match="not signed"):
            check(SECRET.encode(), {**headers, name: ""}, body, 1000)


@pytest.mark.parametrize(("secret", "wrong"), [("", "there is no secret"), ("short", "fewer than 16")])
def test_without_a_secret_nothing_is_taken(tmp_path: Path, secret: str, wrong: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgewright.cli.main", "webhook", "mlflow", "--port", "0", "--store", str(tmp_path)],
        env={**os.environ, "EDGEWRIGHT_WEBHOOK_SECRET": secret}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert wrong in done.stderr
    assert "openssl rand" in done.stderr


def test_a_hint_counts_once_and_only_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright.streams.webhooks._PAUSE", 0.0)
    store = ArtifactStore(tmp_path)
    store.write_json(HINT, {"id": "before"})
    watch = HintWatch(store)
    assert [watch.hinted(), watch.hinted()] == [False, False]
    store.write_json(HINT, {"id": "now"})
    assert [watch.hinted(), watch.hinted()] == [True, False]
