"""Params given as text: read by their declared types, refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright.cli.params import complete, read_params
from edgewright.errors import ConfigError

DECLARED: dict[str, dict[str, Any]] = {
    "alpha": {"type": "number", "default": 0.001, "minimum": 0},
    "epochs": {"type": "integer", "default": 10},
    "fast": {"type": "boolean", "default": False},
    "name": {"type": "string", "default": "x", "pattern": "^[a-z0-9]+$"},
    "layers": {"type": "array", "items": {"type": "integer"}, "default": [8]},
    "extra": {"type": "object", "default": {}},
    "limit": {"type": ["null", "integer"], "default": None},
    "mode": {"enum": ["a", "b", 3], "default": "a"},
    "day": {"type": "string", "format": "date"},
}


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("alpha=0.25", 0.25),
        ("alpha=1e-3", 0.001),
        ("alpha=2", 2),
        ("epochs=7", 7),
        ("fast=true", True),
        ("fast=No", False),
        ("name=007", "007"),
        ("layers=[1, 2]", [1, 2]),
        ('extra={"a": "b=c"}', {"a": "b=c"}),
        ("limit=", None),
        ("limit=null", None),
        ("limit=5", 5),
        ("mode=b", "b"),
        ("mode=3", 3),
    ],
)
def test_values_are_read_by_their_type(pair: str, value: Any):
    ((read, _),) = [(v, k) for k, v in read_params(DECLARED, [pair]).items()]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("alhpa=1", 'no such param: alhpa; did you mean "alpha"? (there are: alpha, day'),
        ("alpha", "alpha: write it as name=value"),
        ("alpha=x", "param alpha: 'x' is not a number"),
        ("alpha=nan", "param alpha: 'nan' is not a number"),
        ("alpha=-1", "param alpha: -1 is less than the minimum of 0"),
        ("epochs=1.5", "param epochs: '1.5' is not an integer"),
        ("fast=perhaps", "param fast: 'perhaps' is not a boolean"),
        ("name=A B", "param name: 'A B' does not match"),
        ("layers=1", "param layers: '1' is not an array"),
        ('layers=["a"]', "param layers: 'a' is not of type 'integer'"),
        ("mode=c", "param mode: 'c' is not one of"),
        ("day=2026-13-01", "param day: '2026-13-01' is not a 'date'"),
    ],
)
def test_wrong_values_say_what_is_wrong(pair: str, message: str):
    with pytest.raises(ConfigError) as caught:
        read_params(DECLARED, [pair])
    assert message in str(caught.value)


def test_every_fault_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        read_params(DECLARED, ["alhpa=1", "epochs=x", "alpha=-1"])
    assert str(caught.value).count(";") >= 2


def test_defaults_are_filled_in_and_what_has_none_must_be_given():
    with pytest.raises(ConfigError, match="param day has no default"):
        complete(DECLARED, {})
    values = complete(DECLARED, {"day": "2026-01-02", "alpha": 1})
    assert values["epochs"] == 10
    assert values["alpha"] == 1
    assert list(values) == list(DECLARED)


def test_a_nullable_param_without_a_default_is_null():
    assert complete({"x": {"type": ["null", "string"]}}, {}) == {"x": None}


def test_params_from_code_are_checked_too():
    with pytest.raises(ConfigError, match="no such param: beta"):
        complete({"alpha": {"type": "number", "default": 1}}, {"beta": 1})
