"""The stack of docker-compose.yml, brought up for real: what is ours runs in images built from images/Dockerfile.

Runs where ``DOCKER_HOST`` leads to the engine of ``make engine`` (PostgreSQL, MinIO and Caddy are real servers behind
the names of their own images there), or to any engine that can pull. Skipped, with the reason, elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from support.tools import demand

from edgewright.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = "http://127.0.0.1:8000"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("compose"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("DOCKER_HOST"), reason="no DOCKER_HOST: make engine, make test-compose"),
]
Compose = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site")
    done = CliRunner().invoke(cli, ["init", "compose", str(folder)])
    assert done.exit_code == 0, done.output
    found = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())
    return {**found, "FILE": str(folder / ".env")}


@pytest.fixture(scope="module")
def compose(passwords: dict[str, str]) -> Iterator[Compose]:
    """Return what calls Compose on the stack, which is up and healthy; it is removed at the end with all it kept."""
    program = demand("docker-compose")
    base = [str(program), "--project-name", "edgewright-test", "--file", str(ROOT / "docker-compose.yml"),
            "--env-file", passwords["FILE"], "--profile", "notebook", "--profile", "spark"]  # fmt: skip
    environ = {**os.environ, "AIRFLOW_IMAGE": "airflow-spark"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*base, *arguments], env=environ, capture_output=True, text=True, timeout=800, check=False
        )

    try:
        done = call("up", "--detach", "--no-build", "--wait", "--wait-timeout", "600")
        assert done.returncode == 0, done.stderr[-3000:] + call("logs", "--tail", "30").stdout[-6000:]
        yield call
    finally:
        call("down", "--volumes", "--timeout", "20")


@pytest.fixture(scope="module")
def trained(compose: Compose, passwords: dict[str, str]) -> dict[str, Any]:
    """Return the end of a run of the bracelet, started from outside by the proxy's address."""
    environ = {**os.environ, "EDGEWRIGHT_AIRFLOW_URL": f"{PAGES}/airflow", "EDGEWRIGHT_AIRFLOW_USER": "admin",
               "EDGEWRIGHT_AIRFLOW_PASSWORD": passwords["AIRFLOW_ADMIN_PASSWORD"]}  # fmt: skip
    command = [sys.executable, "-m", "edgewright.cli.main", "trigger", "bracelet", "--unpause", "--wait", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + compose("logs", "--tail", "40", "airflow-scheduler").stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_all_pages_are_at_one_address(compose: Compose) -> None:
    with httpx.Client(base_url=PAGES, follow_redirects=True, timeout=60) as client:
        assert "MLflow" in client.get("/").text
        assert client.get("/airflow/api/v2/version").json()["version"].startswith("3.")
        assert client.get("/mlflow/health").text == "OK"
        assert "mlflow" in client.get("/mlflow").text.lower()
        assert client.get("/predict/ping").status_code in (200, 503)  # it has no model yet
        assert "MinIO Console" in client.get("/minio/").text
        assert client.get("/jupyter/api").json()["version"]
        away = client.get("/grafana/")
        assert (away.status_code, "does not answer" in away.text) == (502, True)
        assert client.get("/other").status_code == 404


def test_nobody_gets_in_without_a_login(compose: Compose, passwords: dict[str, str]) -> None:
    with httpx.Client(base_url=PAGES, timeout=60) as client:
        assert client.get("/airflow/api/v2/dags").status_code == 401
        assert client.get("/airflow/edgewright/").status_code == 401
        assert client.get("/jupyter/api/contents").status_code == 403
        assert client.get("/jupyter/api/contents", params={"token": passwords["JUPYTER_TOKEN"]}).status_code == 200
        assert client.post("/predict/invocations", json={}).status_code == 401


def test_the_bracelet_runs_is_registered_and_answers(trained: dict[str, Any], passwords: dict[str, str]) -> None:
    assert trained["state"] == "success"
    with httpx.Client(base_url=PAGES, timeout=60) as client:
        document = client.get("/mlflow/api/2.0/mlflow/registered-models/get", params={"name": "bracelet"}).json()
        assert {alias["alias"] for alias in document["registered_model"]["aliases"]} == {"champion"}
        client.headers["Authorization"] = f"Bearer {passwords['SERVING_PREDICT_TOKEN']}"
        row = {"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": 233, "fbs": 1, "restecg": 2, "thalach": 150,
               "exang": 0, "oldpeak": 2.3, "slope": 3, "ca": 0, "thal": 6}  # fmt: skip
        answer = client.post("/predict/invocations", json={"dataframe_records": [row]})
        assert answer.status_code == 200, answer.text


def test_a_notebook_sees_the_registry_the_store_and_airflow(compose: Compose, trained: dict[str, Any]) -> None:
    text = (
        "import os, fsspec, mlflow, edgewright.sdk as sdk\n"
        "client = mlflow.MlflowClient(os.environ['EDGEWRIGHT_TRACKING_URI'])\n"
        "print(client.get_model_version_by_alias('bracelet', 'champion').version)\n"
        "print(len(fsspec.filesystem('s3').ls('edgewright/store')))\n"
        "print(sdk.trigger('bracelet'))\n"
    )
    done = compose("exec", "--no-TTY", "notebook", "python", "-c", text)
    assert done.returncode == 0, done.stderr
    version, files, _ = done.stdout.strip().splitlines()
    assert (version, int(files) > 0) == ("1", True)


SPARK = """
dag_id: on-spark
tasks:
  - {id: data, uses: ingest, with: {source: data.csv, label: y}}
  - id: features
    uses: transform
    with:
      data: {$x: data}
      entry: prepare.py:add
      spark: {master: "spark://spark-master:7077", folder: /opt/airflow/shared}
"""
ADD = """
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

def add(frame):
    # a function of Python's runs in the worker
    return frame.withColumn("b", F.udf(lambda value: value + 1, LongType())("a"))
"""


def test_a_task_runs_on_the_cluster_of_spark(compose: Compose) -> None:
    files = {"pipeline.yaml": SPARK, "prepare.py": ADD, "data.csv": "a,y\n1,0\n2,1\n3,0\n4,1\n"}
    code = (
        "import pathlib, subprocess, sys\n"
        "folder = pathlib.Path('/tmp/on-spark'); folder.mkdir(exist_ok=True)\n"
        f"for name, text in {files!r}.items(): (folder / name).write_text(text)\n"
        "sys.exit(subprocess.run(['edgewright', 'run', str(folder), '--json']).returncode)\n"
    )
    done = compose("exec", "--no-TTY", "airflow-scheduler", "python", "-c", code)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + compose("logs", "spark-worker").stdout
    assert json.loads(done.stdout)["state"] == "success"
    with httpx.Client(base_url=PAGES, follow_redirects=True, timeout=60) as client:
        page = client.get("/spark/").text
        assert "spark://spark-master:7077" in page
        assert "edgewright" in page, "the application that has ended is listed"
        links = re.findall(r'href="([^"]+\.css)"', page)
        assert links
        assert all(client.get(link).status_code == 200 for link in links), links


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_pages_in_a_browser(compose: Compose, trained: dict[str, Any], passwords: dict[str, str]) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{PAGES}/")
        page.wait_for_selector("tr:has-text('MLflow') td.up")
        page.wait_for_selector("tr:has-text('Grafana') td.away")
        page.goto(f"{PAGES}/mlflow/")
        page.wait_for_selector("text=Experiments", timeout=60_000)
        page.goto(f"{PAGES}/airflow/")
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", passwords["AIRFLOW_ADMIN_PASSWORD"])
        page.click("button[type=submit]")
        page.goto(f"{PAGES}/airflow/plugin/edgewright")
        frame = page.frame_locator("iframe")
        frame.locator("text=bracelet").first.wait_for(timeout=60_000)
        frame.locator("table a[target=_top]").first.click()
        page.wait_for_url(f"{PAGES}/airflow/dags/bracelet**", timeout=60_000)
        browser.close()
