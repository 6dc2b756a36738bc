"""``edgewright trigger``: start a run of a pipeline in Airflow, over its REST API."""

from __future__ import annotations

from typing import Any

import click

from edgewright.cli.airflow_api import AirflowApi, params_of
from edgewright.cli.follow import follow_run, raise_if_failed
from edgewright.cli.output import print_json
from edgewright.cli.params import read_params
from edgewright.errors import ConfigError


@click.command("trigger")
@click.argument("dag_id", metavar="DAG")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A param; may be given several times.")
@click.option("--run-id", help="Id of the run. Default: Airflow makes one.")
@click.option("--no-cache", is_flag=True, help="Run every step, reuse nothing.")
@click.option(
    "--wait", is_flag=True, help="Show the tasks as they end, then the summary; exit code 1 if the run fails."
)
@click.option("--unpause", is_flag=True, help="Unpause the Dag first; runs of a paused one do not start.")
@click.option("--url", help="Airflow's address. Default: EDGEWRIGHT_AIRFLOW_URL, or the local stack.")
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    dag_id: str,
    params: tuple[str, ...],
    run_id: str | None,
    no_cache: bool,
    wait: bool,
    unpause: bool,
    url: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Start a run of DAG in the local stack's Airflow, or in another one.

    Airflow itself accepts unknown params silently; here they are refused, and values are read by the params' types.
    Another Airflow's login stands in EDGEWRIGHT_AIRFLOW_TOKEN, or EDGEWRIGHT_AIRFLOW_USER and _PASSWORD.
    """
    api = AirflowApi.local(url=url)
    details = api.details(dag_id)
    conf: dict[str, Any] = read_params(params_of(details), params)
    if no_cache:
        conf["edgewright"] = {"cache": "off"}
    if details.get("is_paused"):
        if not unpause:
            raise ConfigError(f"{dag_id} is paused: its runs would not start", hint="--unpause lets them")
        api.unpause(dag_id)
    started = api.start_run(dag_id, conf, run_id)
    page = api.run_url(dag_id, started)
    if not wait:
        document = {"dag_id": dag_id, "run_id": started, "url": page}
        print_json(document) if as_json else click.echo(f"started {dag_id}: {started}\n{page}")
        return
    _say(f"started {dag_id}: {started}\n{page}")
    _wait(api, dag_id, started, timeout, as_json)


def _wait(api: AirflowApi, dag_id: str, run_id: str, timeout: float, as_json: bool) -> None:
    from edgewright.cli.summary import summary_text

    try:
        outcome = follow_run(api, dag_id, run_id, _say, timeout)
    except KeyboardInterrupt:
        _say(f"the run goes on: {api.run_url(dag_id, run_id)}")
        raise
    if as_json:
        print_json(outcome)
    else:
        click.echo(summary_text(outcome["summary"]))
    raise_if_failed(api, outcome, _say)


def _say(line: str) -> None:
    click.echo(line, err=True)
