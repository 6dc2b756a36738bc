"""A worker on another machine: no folder of pipelines, only Airflow's message and an S3 store."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from moto.server import ThreadedMotoServer
from support import airflow_env

from edgewright.factory.bundle import PipelineBundle

DOCUMENT = """\
dag_id: {name}
description: {about}
tasks:
  - {{id: data, uses: ingest, with: {{source: data.csv, label: y}}}}
"""
#: What Airflow's task runner does first on any worker: its own code, with the message that the scheduler sends.
WORKER = """
import datetime, json, sys, uuid
from unittest import mock
from airflow.sdk.execution_time.comms import BundleInfo, StartupDetails, TaskInstance
from airflow.sdk.execution_time.task_runner import parse
import structlog

name, version, place = sys.argv[1:]
found = parse(
    StartupDetails.model_construct(
        ti=TaskInstance.model_construct(id=uuid.uuid4(), task_id="data", dag_id="a", run_id="r", try_number=1),
        dag_rel_path=place, bundle_info=BundleInfo(name=name, version=version), sentry_integration="",
        ti_context=mock.Mock(max_tries=0), start_date=datetime.datetime.now(datetime.UTC),
    ),
    structlog.get_logger(),
)
folder = found.task._origin.folder
print(json.dumps({
    "about": found.task.dag.description, "folder": str(folder), "data": (folder / "data.csv").read_text(),
    "files": sorted(p.name for p in folder.iterdir() if p.name[0] != "."),
}))
"""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty artifact store on a server that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for variable, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}/artifacts"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def edit(folder: Path, about: str) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "pipeline.yaml").write_text(DOCUMENT.format(name=name, about=about))
        (folder / name / "data.csv").write_text(f"x,y\n{about},0\n")


def on_another_machine(tmp_path: Path, name: str, version: str, store: str) -> subprocess.CompletedProcess[str]:
    """Start a worker that shares nothing with this machine but the store: its ``src`` does not exist there."""
    machine = tmp_path / "machine" / version
    arguments = {"src": "/no/such/dags", "store": store}
    bundles = [{"name": name, "classpath": "edgewright.factory.bundle.PipelineBundle", "kwargs": arguments}]
    environment = {
        **airflow_env.child_environment(),
        "AIRFLOW_HOME": str(machine),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(machine / "bundles"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "EDGEWRIGHT_HOME": str(machine / "home"),
    }
    command = [sys.executable, "-c", WORKER, name, version, "a/pipeline.yaml.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_keeps_its_version_on_a_machine_that_has_only_the_store(tmp_path: Path, home: Path, store: str) -> None:
    src, name = tmp_path / "dags", f"remote-{uuid.uuid4().hex[:8]}"
    edit(src, "one")
    bundle = PipelineBundle(name=name, src=str(src), store=store)
    bundle.initialize()
    first = bundle.get_current_version()
    edit(src, "two")
    bundle.refresh()
    second = bundle.get_current_version()
    assert first is not None
    assert second is not None
    found: dict[str, dict[str, Any]] = {}
    for about, version in (("one", first.version), ("two", second.version)):
        done = on_another_machine(tmp_path, name, version, store)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        found[about] = json.loads(done.stdout.splitlines()[-1])
        assert found[about]["about"] == about
        assert found[about]["data"] == f"x,y\n{about},0\n"
        assert found[about]["files"] == ["data.csv", "pipeline.yaml", "pipeline.yaml.py"]
        assert found[about]["folder"].startswith(str(tmp_path / "machine" / version))


def test_a_version_that_the_store_lacks_is_told_with_what_to_do(tmp_path: Path, home: Path, store: str) -> None:
    done = on_another_machine(tmp_path, "remote", "0123456789abcdef", store)
    assert done.returncode != 0
    assert "version 0123456789abcdef of the Dag bundle remote is neither on this machine nor" in done.stderr
    assert not list((tmp_path / "machine").rglob("pipeline.yaml*"))
