"""``edgewright demo``: the heart-disease pipeline through a real Airflow, from an empty folder to a prediction."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx

from edgewright.cli.airflow_api import AirflowApi
from edgewright.cli.follow import follow_run, raise_if_failed
from edgewright.cli.options import home_option
from edgewright.cli.output import seconds
from edgewright.cli.stack.local import LocalStack
from edgewright.cli.stack.state import StackState
from edgewright.cli.summary import summary_text
from edgewright.cli.up import print_urls, wait_for_interrupt
from edgewright.errors import Busy, Unavailable
from edgewright.installation import find_home

DAG = "bracelet"
#: A patient who is not in the data.
PATIENT: dict[str, float] = {
    "age": 45, "sex": 1, "cp": 3, "trestbps": 112, "chol": 230, "fbs": 0, "restecg": 2, "thalach": 165, "exang": 0,
    "oldpeak": 2.5, "slope": 2, "ca": 1, "thal": 7,
}  # fmt: skip


@click.command("demo")
@click.option("--dags", type=click.Path(file_okay=False, path_type=Path), default=Path("dags"), show_default=True,
              help="Folder of the pipelines.")  # fmt: skip
@home_option
@click.option("--timeout", default=900.0, show_default=True, help="Seconds that the run may take.")
def command(dags: Path, home: Path | None, timeout: float) -> None:
    """Start the local stack, run the pipeline `bracelet` through Airflow, and ask the deployed model.

    In a terminal the stack stays up until Ctrl-C. Without one, or with DEMO_EXIT=1, it is stopped at the end.
    """
    place = (home or find_home()).resolve()
    # what follows reads the installation that this stack writes
    os.environ["EDGEWRIGHT_HOME"] = str(place)
    stays = sys.stdout.isatty() and os.environ.get("DEMO_EXIT", "") in ("", "0")
    stack = LocalStack(place, _say)
    with _alone(place):
        started = time.monotonic()
        _say(f"starting Airflow, MLflow and the prediction service in {place}")
        state = stack.up(dags, owner=os.getpid())
        _say(f"up after {seconds(time.monotonic() - started)}")
        try:
            _run(state, timeout)
            click.echo()
            print_urls(state)
            if stays:
                click.echo("\nThe stack stays up: look around. Ctrl-C stops it.")
                wait_for_interrupt()
        finally:
            _say("stopping the stack")
            stack.down()


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Let one demo at a time use a home folder.

    Raises:
        Busy: another one does; says which.
    """
    with (home / "demo.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise Busy(
                f"another demo (PID {file.read().strip()}) uses {home}",
                hint="stop it with Ctrl-C or `edgewright down`, or give this one a home of its own: "
                "EDGEWRIGHT_HOME=/tmp/other make demo",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _run(state: StackState, timeout: float) -> None:
    api = AirflowApi.local()
    api.wait_for_dag(DAG)
    run_id = api.start_run(DAG, {})
    _say(f"\nrunning {DAG}: {state.urls['airflow']}/dags/{DAG}/runs/{run_id}")
    outcome = follow_run(api, DAG, run_id, _say, timeout)
    if outcome["duration"]:
        _say(f"{outcome['state']} in {seconds(outcome['duration'])}")
    click.echo()
    click.echo(summary_text(outcome["summary"]))
    raise_if_failed(api, outcome, _say)
    answer = predict(next(url for name, url in state.urls.items() if name.startswith("service")))
    click.echo("\nOne prediction")
    click.echo(f"  patient     {json.dumps(PATIENT)}")
    click.echo(f"  answer      {json.dumps({k: v for k, v in answer.items() if k != 'id'})}")


def predict(url: str) -> dict[str, Any]:
    """Ask the prediction service about the patient.

    Raises:
        Unavailable: it does not answer, or refuses.
    """
    try:
        answer = httpx.post(f"{url}/invocations", json={"dataframe_records": [PATIENT]}, timeout=30)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"the prediction service does not answer: {error}", where=url) from error
    found: dict[str, Any] = answer.json()
    return found
