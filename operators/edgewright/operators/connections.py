"""An Airflow connection for a step, in the environment of the task's own process while it runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from edgewright.steps.connections import variable_of


@contextlib.contextmanager
def connections_in_environment(names: Iterable[str]) -> Iterator[None]:
    """Put the connections of a step where it looks for them."""
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(connection_in_environment(name))
        yield


@contextlib.contextmanager
def connection_in_environment(name: str | None) -> Iterator[None]:
    """Put a connection where a step looks for it; one that is there already, or that Airflow does not know, is left."""
    if name is None or variable_of(name) in os.environ:
        yield
        return
    try:
        uri = BaseHook.get_connection(name).get_uri()
    except AirflowNotFoundException:
        yield  # the step says what is missing
        return
    os.environ[variable_of(name)] = uri
    try:
        yield
    finally:
        os.environ.pop(variable_of(name), None)
