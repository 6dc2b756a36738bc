"""Templates outside of Airflow: Jinja in its sandbox, with Airflow's names where they mean something here."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from edgewright.errors import ConfigError

_DAY = "%Y-%m-%d"


def dates(moment: datetime.datetime) -> dict[str, Any]:
    """Return Airflow's date names for a moment (UTC): a run by hand has an interval of no length."""
    return {
        "logical_date": moment,
        "data_interval_start": moment,
        "data_interval_end": moment,
        "ds": moment.strftime(_DAY),
        "ds_nodash": moment.strftime("%Y%m%d"),
        "ts": moment.isoformat(),
        "ts_nodash": moment.strftime("%Y%m%dT%H%M%S"),
        "ts_nodash_with_tz": moment.strftime("%Y%m%dT%H%M%S+0000"),
    }


def run_context(
    *,
    dag_id: str,
    run_id: str,
    moment: datetime.datetime,
    params: Mapping[str, Any],
    pull: Callable[..., Any],
    batch: str | None = None,
) -> dict[str, Any]:
    """Return the names that every template of a run may use.

    Args:
        dag_id: The pipeline.
        run_id: The run.
        moment: When it started, UTC.
        params: Its typed params.
        pull: What ``ti.xcom_pull`` does.
        batch: Which document of the store says what batch started it.
    """
    conf = {**params, **({"edgewright": {"batch": batch}} if batch else {})}
    dag_run = SimpleNamespace(
        dag_id=dag_id, run_id=run_id, conf=conf, run_type="manual", logical_date=moment, start_date=moment,
        data_interval_start=moment, data_interval_end=moment, run_after=moment,
    )  # fmt: skip
    task_instance = SimpleNamespace(dag_id=dag_id, run_id=run_id, xcom_pull=pull, try_number=1, map_index=-1)
    return {
        **dates(moment),
        "params": dict(params),
        "run_id": run_id,
        "dag_run": dag_run,
        "dag": SimpleNamespace(dag_id=dag_id),
        "ti": task_instance,
        "task_instance": task_instance,
        "macros": _macros(),
        "var": SimpleNamespace(value=_Variables(), json=_Variables(as_json=True)),
        "triggering_asset_events": {},
    }


def _macros() -> SimpleNamespace:
    import json
    import random
    import time
    import uuid

    def ds_add(ds: str, days: int) -> str:
        return (datetime.datetime.strptime(ds, _DAY) + datetime.timedelta(days=days)).strftime(_DAY)

    def ds_format(ds: str, input_format: str, output_format: str) -> str:
        return datetime.datetime.strptime(ds, input_format).strftime(output_format)

    return SimpleNamespace(
        datetime=datetime.datetime, timedelta=datetime.timedelta, time=time, uuid=uuid, random=random.random,
        json=json, ds_add=ds_add, ds_format=ds_format,
    )  # fmt: skip


class _Variables:
    """``var.value.x``: Airflow variables from the environment, ``AIRFLOW_VAR_X``."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "jinja_pass_arg":
            raise AttributeError(name)
        text = os.environ.get(f"AIRFLOW_VAR_{name.upper()}")
        if text is None:
            raise ConfigError(
                f"there is no variable {name} here", hint=f"set it in the environment: AIRFLOW_VAR_{name.upper()}=..."
            )
        if self._as_json:
            import json

            return json.loads(text)
        return text


@functools.cache
def environment() -> Any:
    """Return the Jinja environment: sandboxed, undefined names are errors, Airflow's date filters."""
    import jinja2
    import jinja2.sandbox

    env = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined, cache_size=50)
    for name, pattern in (("ds", _DAY), ("ds_nodash", "%Y%m%d"), ("ts_nodash", "%Y%m%dT%H%M%S")):
        env.filters[name] = lambda value, pattern=pattern: value.strftime(pattern)
    env.filters["ts"] = lambda value: value.isoformat()
    return env


def render(text: str, context: Mapping[str, Any]) -> str:
    """Return a rendered template.

    Raises:
        ConfigError: it is no template, or uses a name that does not exist here.
    """
    if "{" not in text:
        return text
    import jinja2

    try:
        return str(environment().from_string(text).render(context))
    except jinja2.TemplateError as error:
        raise ConfigError(f"template {text!r}: {error.message or error}") from error
    except (TypeError, ValueError, ZeroDivisionError, LookupError) as error:
        raise ConfigError(f"template {text!r}: {type(error).__name__}: {error}") from error
