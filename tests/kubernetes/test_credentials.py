"""What gives a pod its store: a Secret, right, missing, wrong and rotated, at an object store that looks at keys."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.cluster import Place, kubectl, marks, pods, until
from support.mlflow_server import free_port

pytestmark = [*marks, pytest.mark.timeout(600)]
USER = "pods"
FIT = """
from sklearn.linear_model import LogisticRegression

def fit(data):
    return LogisticRegression().fit(data.X, data.y)
"""
ROWS = "a,y\n" + "".join(f"{number % 7},{number % 2}\n" for number in range(60))
Run = Callable[[], subprocess.CompletedProcess[str]]


class Store:
    """An object store at an address that pods reach, which refuses who it does not know."""

    def __init__(self) -> None:
        addresses = json.loads(kubectl("get", "node", "node", "-o", "json"))["status"]["addresses"]
        host = next(one["address"] for one in addresses if one["type"] == "InternalIP")
        port = free_port()
        self.url = f"http://{host}:{port}"
        self.own = ("", "")
        self._iam: Any = None
        command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lock(self) -> None:
        """Let in nobody but who has a key."""
        until(self._answers, 60)
        anybody = {"endpoint_url": self.url, "region_name": "us-east-1", "aws_access_key_id": "x",
                   "aws_secret_access_key": "x"}  # fmt: skip
        boto3.client("s3", **anybody).create_bucket(Bucket="lab")
        self._iam = boto3.client("iam", **anybody)
        self._iam.create_user(UserName=USER)
        rights = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        self._iam.put_user_policy(UserName=USER, PolicyName="all", PolicyDocument=json.dumps(rights))
        self.own = self.new_key()
        request = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request, timeout=10).close()  # from now on it looks
        self._iam = boto3.client("iam", **{**anybody, "aws_access_key_id": self.own[0],
                                           "aws_secret_access_key": self.own[1]})  # fmt: skip

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/moto-api/", timeout=2).close()
        except OSError:
            return False
        return True

    def new_key(self) -> tuple[str, str]:
        key = self._iam.create_access_key(UserName=USER)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def forget(self, key: tuple[str, str]) -> None:
        self._iam.delete_access_key(UserName=USER, AccessKeyId=key[0])


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    found = Store()
    try:
        found.lock()
        yield found
    finally:
        found.process.terminate()
        found.process.wait(20)


@pytest.fixture
def run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    place = Place(tmp_path)
    monkeypatch.setenv("EDGEWRIGHT_STORE", "s3://lab/store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", store.own[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", store.own[1])
    profile = place.profile(
        secrets={"AWS_ACCESS_KEY_ID": {"secret": "store", "key": "id"},
                 "AWS_SECRET_ACCESS_KEY": {"secret": "store", "key": "secret"}},
        start_timeout="25s",
    )  # fmt: skip
    profile["env"] |= {"AWS_ENDPOINT_URL": store.url, "AWS_DEFAULT_REGION": "us-east-1"}
    file = place.write({
        "dag_id": "locked", "profiles": {"lab": profile},
        "tasks": [
            {"id": "data", "uses": "ingest", "with": {"source": "data.csv", "label": "y"}},
            {"id": "model", "uses": "train", "profile": "lab", "cache": "off",
             "with": {"data": {"$x": "data"}, "entry": "model.py:fit"}},
        ],
    }, data_csv=ROWS, model_py=FIT)  # fmt: skip
    kubectl("delete", "secret", "store", "--ignore-not-found")
    yield lambda: place.command("run", str(file))
    kubectl("delete", "secret", "store", "--ignore-not-found")
    until(lambda: not pods())


def give(key: tuple[str, str]) -> None:
    """Put a key into the Secret, whatever was there."""
    data = {"id": key[0], "secret": key[1]}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": data}
    kubectl("apply", "-f", "-", given=json.dumps(secret))


def test_a_key_that_is_rotated_is_the_new_one_for_the_next_pod(run: Run, store: Store) -> None:
    first = store.new_key()
    give(first)
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    store.forget(first)
    done = run()
    assert done.returncode != 0, "the old key opens nothing any more"
    said = done.stdout + done.stderr
    assert first[1] not in said
    assert "s3://lab/store" in said
    second = store.new_key()
    give(second)
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    store.forget(second)


def test_a_wrong_key_is_said_in_one_line(run: Run, store: Store) -> None:
    give((store.own[0], "not-the-secret"))
    done = run()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "SignatureDoesNotMatch" in said or "credentials" in said
    assert "Traceback" not in said
    assert "not-the-secret" not in said


def test_a_secret_that_is_not_there_is_said_in_one_line(run: Run) -> None:
    done = run()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert 'secret "store" not found' in said


def test_a_key_that_the_secret_does_not_have_is_said(run: Run) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": {"id": "x"}}
    kubectl("apply", "-f", "-", given=json.dumps(secret))
    done = run()
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "couldn't find key secret in Secret" in said
