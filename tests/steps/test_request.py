"""From ``with:`` to configuration: references, templates, constants."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright.errors import ConfigError
from edgewright.spec.markers import decode, encode
from edgewright.spec.pipeline import Constant, Reference, Template
from edgewright.steps.contract import Identity
from edgewright.steps.request import pure_param, resolve_config

SHA = "a" * 64


def ref(kind: str, name: str) -> dict[str, Any]:
    return {"kind": kind, "uri": f"file:///store/{name}", "sha256": SHA, "size": 1, "meta": {"name": name}}


RESULTS: dict[str, Any] = {
    "data": {"step": "ingest", "identity": {}, "outputs": {"dataset": ref("dataset", "d")}, "metrics": {"rows": 3.0}},
    "model": {"step": "train", "identity": {}, "outputs": {"model": ref("model", "m")}, "metrics": {}, "tags": {}},
    "int8": {
        "step": "quantize",
        "identity": {},
        "outputs": {"model": ref("model", "int8"), "float": ref("model", "float"), "report": ref("report", "r")},
    },
    "plain": {"any": "thing"},
}


def resolve(step: str, config: dict[str, Any], **params: Any) -> dict[str, Any]:
    return resolve_config(
        step,
        config,
        result_of=lambda reference: RESULTS[reference.task],
        render=lambda text: f"rendered {text}",
        params=params,
    )


def test_a_reference_takes_the_output_whose_kind_fits() -> None:
    assert resolve("train", {"data": Reference("data")})["data"]["meta"]["name"] == "d"
    assert resolve("evaluate", {"model": Reference("int8")})["model"]["meta"]["name"] == "int8"


def test_a_key_takes_an_output_by_name() -> None:
    assert resolve("evaluate", {"model": Reference("int8", "float")})["model"]["meta"]["name"] == "float"


def test_a_reference_in_a_list_stands_for_all_outputs_that_fit_the_main_one_last() -> None:
    models = resolve("publish", {"models": [Reference("model"), Reference("int8")]})["models"]
    assert [m["meta"]["name"] for m in models] == ["m", "float", "int8"]


def test_a_reference_outside_of_an_input_field_is_the_whole_value_or_a_metric() -> None:
    config = resolve("train", {"args": {"all": Reference("plain"), "rows": Reference("data", "rows")}})
    assert config["args"] == {"all": {"any": "thing"}, "rows": 3.0}


def test_what_does_not_fit_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="task model has no dataset") as caught:
        resolve("train", {"data": Reference("model")})
    assert "model (model)" in str(caught.value)
    with pytest.raises(ConfigError, match="task int8 has no output flaot"):
        resolve("evaluate", {"model": Reference("int8", "flaot")})


def test_a_template_that_is_nothing_but_a_param_keeps_its_type() -> None:
    config = resolve("train", {"args": {"a": Template("{{ params.alpha }}"), "b": Template("x {{ ds }}")}}, alpha=0.5)
    assert config["args"] == {"a": 0.5, "b": "rendered x {{ ds }}"}


def test_an_unknown_param_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such param: beta"):
        resolve("train", {"args": {"a": Template("{{ params.beta }}")}}, alpha=0.5)


def test_a_constant_is_not_looked_into() -> None:
    assert resolve("train", {"args": {"a": Constant({"$t": "{{ x }}"})}})["args"] == {"a": {"$t": "{{ x }}"}}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{{ params.alpha }}", "alpha"),
        ("{{params['alpha']}}", "alpha"),
        ("{{ params.alpha | int }}", None),
        (" x {{ params.alpha }}", None),
    ],
)
def test_pure_param(text: str, name: str | None) -> None:
    assert pure_param(text) == name


def test_markers_survive_the_way_through_json() -> None:
    value = {
        "a": [Reference("t"), Reference("t", "k")],
        "b": {"c": Template("{{ x }}")},
        "d": Constant({"$x": 1}),
        "e": 1,
    }
    assert decode(encode(value)) == value
    assert encode(value)["a"] == [{"$x": "t"}, {"$x": {"task": "t", "key": "k"}}]


@pytest.mark.parametrize("name", ["..", ".", "...", "a/../../b"])
def test_no_name_of_a_run_leads_out_of_its_dags_folder(name: str) -> None:
    parts = Identity(dag_id="d", run_id=name, task_id="t").key.split("/")
    assert (parts[:2], parts[3:]) == (["runs", "d"], ["t"])
    assert parts[2].strip(".")
