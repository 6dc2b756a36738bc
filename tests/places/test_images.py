"""Each image's lock, installed into a plain environment, does what its image is for, without Airflow.

No engine and no registry are needed for that; what the Dockerfiles say beside it is checked in test_dockerfiles.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mlflow_server import MlflowServer
from support.prediction_service import ReleaseMaker

from edgewright.cli.dev.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Environment = Callable[[str], Path]


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=env, timeout=600, cwd="/", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return the interpreter of an image's lock with our wheel, made as the Dockerfile makes it."""
    if not UV.exists():
        pytest.skip("no uv beside this interpreter: make install-dev")
    folder = tmp_path_factory.mktemp("images")
    run(UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", folder, ROOT)
    wheel = next(folder.glob("*.whl"))

    def make(name: str) -> Path:
        python = folder / name / "bin" / "python"
        if not python.exists():
            run(UV, "venv", "--quiet", "--python", sys.executable, folder / name)
            lock = ROOT / "requirements" / "images" / f"{name}.txt"
            run(UV, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock)
            run(UV, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
        return python

    return make


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path / "mlflow")
    server.start()
    yield server
    server.stop()


def test_steps_give_the_same_digests_in_the_step_image(environment: Environment, mlflow: MlflowServer, tmp_path: Path):
    folder, home = tmp_path / "bracelet", tmp_path / "home"
    shutil.copytree(ROOT / "dags" / "bracelet", folder)
    env = {**os.environ, "EDGEWRIGHT_HOME": str(home), "EDGEWRIGHT_TRACKING_URI": mlflow.uri}
    run(Path(sys.executable).parent / "edgewright", "run", folder / "pipeline.yaml", "--skip", "live", env=env)
    python = environment("step-cpu")
    answered = {}
    for file in sorted(home.glob("store/runs/bracelet/*/*/request.json"), key=lambda one: one.stat().st_mtime):
        before = json.loads(file.with_name("result.json").read_text())
        after = json.loads(run(python, "-m", "edgewright.steps", file, "--cache", "off", "--json", env=env))
        assert after["state"] == "success"
        answered[before["step"]] = (
            {name: one["sha256"] for name, one in before["outputs"].items()},
            {name: one["sha256"] for name, one in after["outputs"].items()},
        )
    assert set(answered) >= {"ingest", "validate", "train", "evaluate", "quantize", "publish"}
    for step in ("ingest", "validate", "train", "quantize"):
        mine, theirs = ({name: sha for name, sha in one.items() if name != "report"} for one in answered[step])
        assert mine == theirs, step  # (a report tells times, too)
    absent = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('airflow', 'flask', 'torch'))))"
    run(python, "-c", absent)
    assert "Usage: edgewright sink cassandra" in run(python.parent / "edgewright", "sink", "cassandra", "--help")
    assert "Usage: edgewright bridge mqtt" in run(python.parent / "edgewright", "bridge", "mqtt", "--help")


def test_the_service_serves_in_the_serving_image(environment: Environment, tmp_path: Path):
    import httpx

    releases = tmp_path / "releases"
    ReleaseMaker(releases).make(1, name="bracelet")
    ready = tmp_path / "ready.json"
    python = environment("serving")
    command = [str(python), "-m", "edgewright.serving", "--home", str(tmp_path / "home"), "--port", "0",
               "--tracking-uri", f"file://{releases}", "--model", "bracelet", "--ready-file", str(ready)]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
    try:
        for _ in range(600):
            if ready.exists() and httpx.get(json.loads(ready.read_text())["url"] + "/ping").status_code == 200:
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.2)
        url = json.loads(ready.read_text())["url"]
        rows = json.loads((releases / "bracelet" / "1" / "golden.json").read_text())["inputs"]
        answer = httpx.post(url + "/invocations", json={"dataframe_records": rows})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"]) == len(rows)
    finally:
        process.terminate()
        process.wait(60)
    absent = (
        "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('airflow', 'flask', 'pandas', 'sklearn'))))"
    )
    run(python, "-c", absent)


def test_the_mlflow_image_has_its_login_and_postgresql(environment: Environment):
    python = environment("mlflow")
    run(
        python,
        "-c",
        "import mlflow.server.auth, psycopg2, boto3",
        env={**os.environ, "MLFLOW_FLASK_SERVER_SECRET_KEY": "k"},
    )


def test_the_edge_image_opens_and_tries_a_bundle(environment: Environment, tmp_path: Path):
    folder, bundle = tmp_path / "bracelet", tmp_path / "bracelet.tar"
    shutil.copytree(ROOT / "dags" / "bracelet", folder)
    env = {**os.environ, "EDGEWRIGHT_HOME": str(tmp_path / "home")}
    edgewright = Path(sys.executable).parent / "edgewright"
    run(edgewright, "run", folder / "pipeline.yaml", "--skip", "live", env=env)
    run(edgewright, "bundle", "bracelet@champion", "--target", "onnx-int8", "-o", bundle, env=env)
    python = environment("edge")
    found = json.loads(run(python.parent / "edgewright", "verify", bundle, "--json"))
    assert found, found
    absent = (
        "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('airflow', 'pyarrow', 'sklearn', 'mlflow'))))"
    )
    run(python, "-c", absent)


def test_the_airflow_image_makes_its_database_in_postgresql(
    environment: Environment, postgres: PostgresServer, tmp_path: Path
):
    python = environment("airflow")
    create = (
        "import psycopg2 as p; c = p.connect({!r}); c.autocommit = True; c.cursor().execute('create database images')"
    )
    run(python, "-c", create.format(postgres.url))
    address = postgres.url.replace("postgresql://", "postgresql+psycopg2://", 1).rpartition("/")[0] + "/images"
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
           "PATH": f"{python.parent}:/usr/bin:/bin"}  # fmt: skip
    run(python.parent / "airflow", "db", "migrate", env=env)
    run(python.parent / "airflow", "db", "check-migrations", "--migration-wait-timeout", "5", env=env)
    assert "edgewright" in run(python.parent / "airflow", "providers", "list", "-o", "plain", env=env)
    assert "pipeline without faults" in run(python.parent / "edgewright", "check", ROOT / "dags" / "bracelet", env=env)
