"""Asking who has an alias without MLflow's client: the same answers as the client's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.registry import light
from edgewright.registry.client import Registry


def through_client(registry: Registry, name: str, alias: str) -> object:
    with registry.connection.calls("open the client"):
        pass
    assert registry.connection.is_open
    return registry.champion(name, alias)


@pytest.fixture(params=["sqlite", "server"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "server":
        return str(request.getfixturevalue("mlflow_server").uri)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_the_same_answers_as_the_client(address: str) -> None:
    registry = Registry(address)
    with registry.connection.calls("make a model") as client:
        client.create_registered_model("light")
        client.create_model_version("light", "s3://none/x", tags={"digest": "d1", "x": "y"}, await_creation_for=0)
        client.set_registered_model_alias("light", "champion", "1")
        client.set_registered_model_alias("light", "other", "1")
    for alias in ("champion", "none"):
        assert light.by_alias(address, "light", alias) == through_client(registry, "light", alias)
    assert light.by_alias(address, "no-such-model", "champion") is None
    assert light.by_alias(address, "light", "champion").aliases == ("champion", "other")  # type: ignore[union-attr]


def test_no_client_is_imported(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with Registry(address).connection.calls("make the tables"):
        pass
    code = (
        "import sys; from edgewright.registry import Registry; "
        f"assert Registry({address!r}).champion('x') is None; assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("address", ["postgresql://u:p@h/db", "http://user:secret@127.0.0.1:9", "http://127.0.0.1:9"])
def test_what_is_not_as_expected_is_left_to_the_client(address: str) -> None:
    with pytest.raises(light.AskTheClient):
        light.by_alias(address, "x", "champion")


def test_tables_of_another_version_are_left_to_the_client(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('another')")
    with pytest.raises(light.AskTheClient):
        light.by_alias(f"sqlite:///{tmp_path / 'mlflow.db'}", "x", "champion")
