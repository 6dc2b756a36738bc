"""What an operator makes of its arguments while a Dag file is read."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, literal, task

import edgewright.operators
from edgewright.errors import ConfigError
from edgewright.operators import DeployOperator, IngestOperator, StepOperator, TrainOperator, ValidateOperator
from edgewright.spec.steps import STEPS

BRACELET = Path(__file__).parents[2] / "dags" / "bracelet"


@pytest.fixture
def dag() -> Any:
    with DAG("d", schedule=None) as dag:
        yield dag


def operator_of(step: str) -> type[StepOperator]:
    return getattr(edgewright.operators, f"{step.capitalize()}Operator")


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_an_operator_with_its_fields_as_arguments(step: str):
    operator = operator_of(step)
    arguments = set(inspect.signature(operator).parameters) - {"config", "kwargs"}
    assert operator.step == step
    assert arguments == {info.alias or name for name, info in STEPS[step].config.model_fields.items()}


def test_outputs_become_references_and_upstreams(dag: DAG):
    data = IngestOperator(task_id="data", source="a.csv")
    checks = ValidateOperator(task_id="checks", data=data.output)
    model = TrainOperator(task_id="model", data=checks, entry="model.py:fit", folder=str(BRACELET))
    assert checks.config == {"data": {"$x": "data"}}
    assert model.config == {"data": {"$x": "checks"}, "entry": "model.py:fit"}
    assert checks.upstream_task_ids == {"data"}
    assert model.upstream_task_ids == {"checks"}


def test_named_outputs_and_taskflow_outputs_are_taken(dag: DAG):
    @task
    def choose() -> dict[str, float]:
        return {"alpha": 1.0}

    data = IngestOperator(task_id="data", source="a.csv")
    model = TrainOperator(
        task_id="model", data=data.output["dataset"], entry="model.py:fit", folder=str(BRACELET),
        args={"alpha": choose()["alpha"]},
    )  # fmt: skip
    assert model.config["data"] == {"$x": {"task": "data", "key": "dataset"}}
    assert model.config["args"] == {"alpha": {"$x": {"task": "choose", "key": "alpha"}}}
    assert model.upstream_task_ids == {"data", "choose"}


def test_texts_are_templates_unless_literal(dag: DAG):
    operator = IngestOperator(
        task_id="data", source="s3://raw/{{ ds }}.csv", label=literal("{{ odd }}"), encoding="utf-8"
    )
    assert operator.config == {
        "source": {"$t": "s3://raw/{{ ds }}.csv"},
        "label": {"$const": "{{ odd }}"},
        "encoding": "utf-8",
    }


def test_all_faults_are_told_at_once(dag: DAG):
    with pytest.raises(ConfigError) as caught:
        IngestOperator(task_id="data", split={"tset": 0.2, "test": 2}, format="cvs")
    text = str(caught.value)
    assert all(line.startswith("d.data: ") for line in text.splitlines())
    assert "source is required" in text
    assert "unknown key 'tset'" in text
    assert 'did you mean "test"?' in text
    assert "d.data: split.test: 2" in text
    assert 'did you mean "csv"?' in text


def test_a_missing_function_is_told_before_a_run(dag: DAG):
    data = IngestOperator(task_id="data", source="a.csv")
    with pytest.raises(ConfigError, match=r"d\.model: entry: model.py has no fti.*did you mean \"fit\""):
        TrainOperator(task_id="model", data=data.output, entry="model.py:fti", folder=str(BRACELET))


def test_a_gate_on_something_that_is_not_measured_is_told(dag: DAG):
    data = IngestOperator(task_id="data", source="a.csv")
    with pytest.raises(ConfigError, match="does not measure 'acuracy'.*did you mean \"accuracy\""):
        edgewright.operators.EvaluateOperator(
            task_id="q", model=data.output, data=data.output, gates={"acuracy": ">= 0.5"}
        )


def test_values_that_json_cannot_say_are_refused(dag: DAG):
    with pytest.raises(ConfigError, match="types.x: set is no value that a step can take"):
        IngestOperator(task_id="data", source="a.csv", types={"x": {1, 2}})


def test_mapped_outputs_are_refused_with_a_reason(dag: DAG):
    data = IngestOperator(task_id="data", source="a.csv")
    with pytest.raises(ConfigError, match="data: a mapped or zipped output cannot be taken"):
        ValidateOperator(task_id="checks", data=data.output.map(lambda value: value))


def test_unknown_cache_is_refused(dag: DAG):
    with pytest.raises(ConfigError, match="cache: 'never' is not allowed"):
        IngestOperator(task_id="data", source="a.csv", cache="never")


def test_unknown_argument_is_airflows_error(dag: DAG):
    with pytest.raises(TypeError, match="sorce"):
        IngestOperator(task_id="data", sorce="a.csv")


def test_config_may_be_given_as_one_mapping(dag: DAG):
    release = EmptyOperator(task_id="release")
    operator = DeployOperator(task_id="live", config={"release": release.output, "to": {"service": "s"}}, timeout=5)
    assert operator.config == {"release": {"$x": "release"}, "to": {"service": "s"}, "timeout": 5}
    assert operator.upstream_task_ids == {"release"}


def test_default_args_reach_a_step():
    with DAG("d", schedule=None, default_args={"retries": 7}):
        assert IngestOperator(task_id="data", source="a.csv").retries == 7


def test_every_value_is_in_the_serialized_dag(dag: DAG):
    from airflow.serialization.serialized_objects import DagSerialization

    def serialized(last: str) -> dict[str, Any]:
        with DAG("big", schedule=None) as big:
            IngestOperator(task_id="data", source="a.csv", columns=[f"column_{n}" for n in range(2000)] + [last])
        return DagSerialization.to_dict(big)["dag"]["tasks"][0]["__var"]

    # Airflow cuts the field itself off, so the digest has to differ
    one, other = serialized("a"), serialized("b")
    assert one["config"] == other["config"]
    assert one["config_sha256"] != other["config_sha256"]


def test_a_serialized_dag_can_be_read_back(dag: DAG):
    from airflow.serialization.serialized_objects import DagSerialization

    IngestOperator(task_id="data", source="a.csv", folder="x")
    back = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert back.get_task("data").config == {"source": "a.csv"}
    assert sorted(back.get_task("data").extra_links) == ["Artifacts", "MLflow run", "Report"]
