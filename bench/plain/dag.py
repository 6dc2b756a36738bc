"""The plain functions as a hand-written Dag of ``@task``s, for ``bench/pipeline_overhead.py``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pendulum
import yaml
from airflow.sdk import DAG, task

sys.path.insert(0, os.environ.get("BENCH_FOLDER", str(Path(__file__).parent)))
import steps

# the same MLflow server as our Dag uses
installation = Path(os.environ["EDGEWRIGHT_HOME"]) / "installation.yaml"
os.environ["MLFLOW_TRACKING_URI"] = yaml.safe_load(installation.read_text())["tracking_uri"]

with DAG("plain", schedule=None, start_date=pendulum.datetime(2026, 1, 1), catchup=False, tags=["bench"]):
    value = task(task_id="ingest")(steps.ingest)(
        os.environ.get("BENCH_WORK", tempfile.gettempdir()) + "/plain-{{ run_id | replace(':', '-') }}"
    )
    for step in steps.STEPS[1:]:
        value = task(task_id=step.__name__)(step)(value)
