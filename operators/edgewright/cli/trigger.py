"""``edgewright trigger``: start a run of a pipeline in Airflow, over its REST API."""

from __future__ import annotations

from typing import Any

import click

from edgewright.cli.airflow_api import AirflowApi
from edgewright.cli.follow import follow_run, raise_if_failed
from edgewright.cli.output import print_json
from edgewright.cli.params import read_params


@click.command("trigger")
@click.argument("dag_id", metavar="DAG")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A param; may be given several times.")
@click.option("--run-id", help="Id of the run. Default: Airflow makes one.")
@click.option("--no-cache", is_flag=True, help="Run every step, reuse nothing.")
@click.option(
    "--wait", is_flag=True, help="Show the tasks as they end, then the summary; exit code 1 if the run fails."
)
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    dag_id: str, params: tuple[str, ...], run_id: str | None, no_cache: bool, wait: bool, timeout: float, as_json: bool
) -> None:
    """Start a run of DAG in the local stack's Airflow, or in the one that EDGEWRIGHT_AIRFLOW_URL names.

    Airflow itself accepts unknown params silently; here they are refused, and values are read by the params' types.
    """
    from edgewright.cli.summary import summary_text

    api = AirflowApi.local()
    conf: dict[str, Any] = read_params(api.params(dag_id), params)
    if no_cache:
        conf["edgewright"] = {"cache": "off"}
    started = api.start_run(dag_id, conf, run_id)
    if not wait:
        print_json({"dag_id": dag_id, "run_id": started}) if as_json else click.echo(f"started {dag_id}: {started}")
        return
    click.echo(f"started {dag_id}: {started}", err=True)
    outcome = follow_run(api, dag_id, started, lambda line: click.echo(line, err=True), timeout)
    if as_json:
        print_json(outcome)
    else:
        click.echo(summary_text(outcome["summary"]))
    raise_if_failed(api, outcome, lambda line: click.echo(line, err=True))
