"""A pipeline's run in Airflow, started from a notebook over the REST API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewright.cli.airflow_api import AirflowApi, params_of
from edgewright.cli.output import did_you_mean
from edgewright.errors import ConfigError


@dataclass
class Started:
    """A run that was started.

    Attributes:
        dag_id: The pipeline.
        run_id: The run.
        url: Its page in Airflow.
        state: As Airflow said last.
    """

    dag_id: str
    run_id: str
    url: str
    state: str


def trigger(
    pipeline: str,
    params: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
    wait: bool = False,
    timeout: float = 3600.0,
    url: str | None = None,
) -> Started:
    """Start a run of a pipeline.

    Args:
        pipeline: The ``dag_id``.
        params: By name; unknown ones are refused, which Airflow itself does not do.
        run_id: Default: Airflow makes one.
        wait: Return when the run has ended.
        timeout: Seconds to wait.
        url: Airflow's address. Default: ``EDGEWRIGHT_AIRFLOW_URL``, or the local stack.

    Raises:
        ConfigError: an unknown param, or the pipeline is paused.
        Unavailable: Airflow does not answer, or the run had not ended in time.
    """
    api = AirflowApi.local(url=url)
    details = api.details(pipeline)
    known = params_of(details)
    unknown = [f"{name}{did_you_mean(name, known)}" for name in params or {} if name not in known]
    if unknown:
        raise ConfigError(f"no such param: {'; '.join(unknown)}", hint=f"{pipeline} has: {', '.join(known) or 'none'}")
    if details.get("is_paused"):
        hint = f"edgewright trigger {pipeline} --unpause"
        raise ConfigError(f"{pipeline} is paused: its runs would not start", hint=hint)
    started = api.start_run(pipeline, dict(params or {}), run_id)
    found = Started(pipeline, started, api.run_url(pipeline, started), "queued")
    return _follow(api, found, timeout) if wait else found


def _follow(api: AirflowApi, run: Started, timeout: float) -> Started:
    for seen, _ in api.follow(run.dag_id, run.run_id, timeout):
        run.state = str(seen["state"])
    return run
