"""Gates: reading them, judging by them."""

from __future__ import annotations

import pytest

from edgewright.errors import ConfigError, GateFailed
from edgewright.spec.gates import check_gates, demand, parse_gate


@pytest.mark.parametrize(
    ("text", "value", "passed"),
    [
        (">= 0.75", 0.75, True),
        ("> 0.75", 0.75, False),
        ("<=2%", 0.02, True),
        ("< 1e-3", 0.002, False),
        ("== 3", 3.0, True),
        (">= -0.01", -0.02, False),
    ],
)
def test_a_gate_compares(text: str, value: float, passed: bool) -> None:
    assert parse_gate("m", text).check(value).passed is passed


@pytest.mark.parametrize("text", ["0.75", "=> 1", ">= high", "", None, 3, ">= 1 2", ">= nan"])
def test_what_is_no_gate_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a comparison and a number"):
        parse_gate("m", text)


def test_nothing_to_compare_with_passes_and_says_so() -> None:
    (result,) = check_gates(
        {"accuracy_vs_champion": ">= 0"}, {"accuracy_vs_champion": None}, {"accuracy_vs_champion": "no champion yet"}
    )
    assert result.passed
    assert "no champion yet" in str(result)


def test_a_typo_names_what_was_measured() -> None:
    with pytest.raises(ConfigError, match="no such metric: accurcy") as caught:
        check_gates({"accurcy": ">= 0"}, {"accuracy": 1.0}, {})
    assert "measured were: accuracy" in str(caught.value)


def test_a_failed_gate_names_gate_value_and_limit_and_keeps_all_verdicts() -> None:
    results = check_gates({"a": ">= 1", "b": "<= 1"}, {"a": 0.5, "b": 0.5}, {})
    with pytest.raises(GateFailed, match=r"a = 0.5, gate >= 1: FAILED") as caught:
        demand(results)
    assert len(caught.value.results) == 2
