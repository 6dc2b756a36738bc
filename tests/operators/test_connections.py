"""A connection that Airflow keeps reaches a step through the environment of the task's own process, and leaves it."""

from __future__ import annotations

import os

import pytest
from airflow.sdk import BaseHook, Connection

from edgewright.operators.connections import connection_in_environment
from edgewright.steps.connections import object_store_options


def test_a_connection_is_there_while_the_step_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Connection(
        conn_id="raw",
        conn_type="aws",
        login="key",
        password="s/cret",
        extra='{"endpoint_url": "http://127.0.0.1:9000"}',
    )
    monkeypatch.setattr(BaseHook, "get_connection", classmethod(lambda cls, name: kept))
    with connection_in_environment("raw"):
        assert object_store_options("raw") == {
            "key": "key", "secret": "s/cret", "client_kwargs": {"endpoint_url": "http://127.0.0.1:9000"}
        }  # fmt: skip
    assert "AIRFLOW_CONN_RAW" not in os.environ


def test_a_step_without_a_connection_gets_none() -> None:
    with connection_in_environment(None):
        assert not [name for name in os.environ if name.startswith("AIRFLOW_CONN_RAW")]
