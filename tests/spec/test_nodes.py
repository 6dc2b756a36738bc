"""YAML as it is read here: scalars without surprises, positions, limits."""

from __future__ import annotations

import time
from typing import Any

import pytest

from edgewright.spec.faults import Faults
from edgewright.spec.nodes import MAX_BYTES, read


def value_of(text: str) -> Any:
    faults = Faults("f.yaml")
    value = read(f"v: {text}\n", faults)
    assert not faults.found, [str(fault) for fault in faults.found]
    return value["v"]


def faults_of(text: str) -> list[str]:
    faults = Faults("f.yaml")
    read(text, faults)
    return [str(fault) for fault in faults.found]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None), ("12", 12), ("-5", -5), ("+5", 5),
        ("0", 0), ("0x1F", 31), ("0o17", 15), ("1e3", 1000.0), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("-0.25", -0.25),
        ("2026-01-01", "2026-01-01"), ("1:30", "1:30"), ("y", "y"), ("n", "n"), ("1.2.3", "1.2.3"), ("5m", "5m"),
        ("'no'", "no"), ('"0777"', "0777"), ("'12'", "12"), ("!!str 12", "12"), ("- ", [None]), ("<=", "<="),
        ("a: b", None),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    if text == "a: b":
        assert faults_of("v: a: b")
    elif text == "- ":
        assert value_of("[~]") == value
    else:
        found = value_of(text)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("text", ["yes", "No", "ON", "off", "0777", "007", "1_000", "0b11", "0x_1", "1_0.5"])
def test_what_yaml_1_1_reads_otherwise_is_refused(text: str) -> None:
    (fault,) = faults_of(f"v: {text}\n")
    assert fault.startswith(f"f.yaml:1:4: v: {text} ")
    assert f'or "{text}"' in fault


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read("on: 1\nno: 2\n12: 3\n2026-01-01: 4\n", Faults("f")) == {"on": 1, "no": 2, "12": 3, "2026-01-01": 4}


def test_a_merged_mapping_gives_way_to_own_keys_and_to_earlier_ones() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {x: 0, <<: [*a, *b]}\nd: {<<: [*a, *b]}\n"
    found = read(text, Faults("f"))
    assert found["c"] == {"x": 0, "y": 1, "z": 2}
    assert found["d"] == {"x": 1, "y": 1, "z": 2}


def test_positions_count_characters_from_one_and_know_the_end() -> None:
    faults = Faults("f.yaml")
    read("ä: {ö: [1, zwei]}\n", faults)
    assert faults.position(("ä", "ö", 1)) == faults.position(("ä", "ö", 1, "deeper"))
    position = faults.position(("ä", "ö", 1))
    assert (position.line, position.column, position.end_column) == (1, 12, 16)
    assert faults.position(("ä", "ö"), key=True).column == 5


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500_000, "- " * 300_000, "{a: " * 100_000, "? " * 100_000, "&a [*a, *a]", "x: &x {<<: *x}",
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "v: " + "x" * MAX_BYTES,
        "v: [" + "1, " * 100_000 + "1]",
    ],
    ids=["brackets", "dashes", "braces", "questions", "itself", "merge", "laughs", "bytes", "values"],
)  # fmt: skip
def test_what_would_blow_up_is_refused_soon(text: str) -> None:
    start = time.perf_counter()
    (fault,) = faults_of(text)
    assert "refused" in fault or "larger than" in fault
    assert time.perf_counter() - start < 30  # measured below 1 s on an idle machine


def test_a_long_document_that_is_not_deep_is_taken() -> None:
    text = "\n".join(f"k{number}: [{{a: 1}}, '{'x' * 600}']" for number in range(1000))
    assert len(read(text, Faults("f"))) == 1000
