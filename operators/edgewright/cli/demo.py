"""``edgewright demo``: the heart-disease pipeline through a real Airflow, from an empty folder to a prediction."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click
import httpx

from edgewright.cli.airflow_api import AirflowApi
from edgewright.cli.follow import follow_run, raise_if_failed
from edgewright.cli.options import home_option
from edgewright.cli.output import seconds
from edgewright.cli.stack.local import LocalStack, exclusive
from edgewright.cli.stack.services import PREFIX
from edgewright.cli.stack.signals import interruptible
from edgewright.cli.stack.state import Running, StackState
from edgewright.cli.summary import summary_text
from edgewright.cli.up import print_urls, watch
from edgewright.errors import Unavailable
from edgewright.installation import find_home

DAG = "bracelet"
SERVICE = "bracelet"
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
    hint = "stop it with Ctrl-C or `edgewright down`, or give this one a home: EDGEWRIGHT_HOME=/tmp/other make demo"
    with interruptible(), exclusive(place / "demo.lock", f"runs the demo in {place}", hint):
        began = time.monotonic()
        _say(f"starting Airflow, MLflow and the prediction service in {place}")
        # without schedules: Airflow would make up for the last missed run at once, beside the one that is shown here
        started = stack.up(dags, asked=[SERVICE], schedules=False, owner=Running.me())
        if not started.new:
            _say("the stack is up already; it stays up afterwards")
            _run(started.state, timeout)
            return
        _say(f"up after {seconds(time.monotonic() - began)}")
        try:
            _run(started.state, timeout)
            if stays:
                click.echo("\nThe stack stays up: look around. Ctrl-C stops it.")
                with contextlib.suppress(KeyboardInterrupt):
                    watch(started.state, _say)
        finally:
            stack.down()


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _run(state: StackState, timeout: float) -> None:
    api = AirflowApi(state.urls["airflow"], *_login(state))
    api.wait_for_dag(DAG, since=state.started)
    if api.details(DAG).get("is_paused"):
        _say(f"{DAG} was paused: letting its runs start")
        api.unpause(DAG)
    run_id = api.start_run(DAG, {})
    _say(f"\nrunning {DAG}: {api.run_url(DAG, run_id)}")
    outcome = follow_run(api, DAG, run_id, _say, timeout)
    if outcome["duration"]:
        _say(f"{outcome['state']} in {seconds(outcome['duration'])}")
    click.echo()
    click.echo(summary_text(outcome["summary"]))
    raise_if_failed(api, outcome, _say)
    answer = predict(state.urls[f"{PREFIX}{SERVICE}"])
    click.echo("\nOne prediction")
    click.echo(f"  patient     {json.dumps(PATIENT)}")
    click.echo(f"  answer      {json.dumps({k: v for k, v in answer.items() if k != 'id'})}")
    click.echo()
    print_urls(state)


def _login(state: StackState) -> tuple[str, str]:
    return "admin", json.loads(Path(state.login_file).read_text())["admin"]


def predict(url: str) -> dict[str, Any]:
    """Ask the prediction service about the patient.

    Raises:
        Unavailable: it does not answer, or refuses.
    """
    try:
        with httpx.Client(trust_env=False, timeout=30) as client:
            answer = client.post(f"{url}/invocations", json={"dataframe_records": [PATIENT]})
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"the prediction service does not answer: {error}", where=url) from error
    found: dict[str, Any] = answer.json()
    return found
