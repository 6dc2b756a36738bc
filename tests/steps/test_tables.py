"""Formats: what is read, with which types, and what is said about files that are not right."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgewright.errors import ConfigError, DataError
from edgewright.steps.data import Dataset

#: More rows than the first block of a short file holds.
FAR = 700_000


@pytest.fixture
def read(run_step: Any, pipeline_folder: Path) -> Any:
    """Write a file, ingest it, and return the dataset."""

    def run(contents: str | bytes | pa.Table | pd.DataFrame, name: str = "data.csv", **config: Any) -> Dataset:
        place = pipeline_folder / name
        if isinstance(contents, pa.Table):
            pq.write_table(contents, place)
        elif isinstance(contents, pd.DataFrame):
            contents.to_parquet(place)
        else:
            place.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        result = run_step("ingest", {"source": name, **config})
        return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))

    return run


def types(dataset: Dataset) -> dict[str, str]:
    return {column["name"]: column["type"] for column in dataset.columns}


# -- CSV -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "first"),
    [
        (["1", "2"], "integer", 1),
        (["1", ""], "integer", 1.0),
        (["1.5", "2"], "number", 1.5),
        (["x", "2"], "string", "x"),
        (["true", "false"], "boolean", True),
        (["2026-01-02", "2026-01-03"], "date", datetime.date(2026, 1, 2)),
        (["2026-01-02 10:00:00", "2026-01-03 11:00:00.5"], "timestamp", pd.Timestamp(2026, 1, 2, 10)),
        (["10:30:00", "11:00:00"], "string", "10:30:00"),
        (['"a\nb"', "c"], "string", "a\nb"),
    ],
)
def test_types_are_inferred(read: Any, values: list[str], kind: str, first: Any) -> None:
    dataset = read("a,b\n" + "".join(f"{value},1\n" for value in values))
    assert types(dataset)["a"] == kind
    assert dataset.frame("train").a[0] == first


@pytest.mark.parametrize(
    ("early", "late", "kind"),
    [
        ("1", "1.5", "number"),
        ("", "5", "integer"),
        ("", "1.5", "number"),
        ("", "x", "string"),
        ("2026-01-02", "2026-01-02 10:00:00", "timestamp"),
        ("2026-01-02 10:00:00", "2026-01-02 10:00:00.25", "timestamp"),
        ("10:00:00", "late", "string"),
    ],
)
def test_types_widen_where_a_later_value_needs_it(read: Any, early: str, late: str, kind: str) -> None:
    dataset = read("a,b\n" + f"{early},1\n" * FAR * 2 + f"{late},1\n")
    assert types(dataset)["a"] == kind
    assert dataset.manifest["rows"] == FAR * 2 + 1


def test_not_a_number_is_missing_and_infinity_is_no_range(read: Any) -> None:
    dataset = read("a,b\n1.5,1\nnan,2\ninf,3\n")
    assert dataset.manifest["missing"] == {"a": 1}
    assert (dataset.columns[0]["minimum"], dataset.columns[0]["maximum"]) == (1.5, 1.5)


@pytest.mark.parametrize(
    ("contents", "config"),
    [
        (b"\xef\xbb\xbfage,n\n63,1\n", {}),
        ("age,n\n63,1\n".encode("utf-16"), {"encoding": "utf-16"}),
        (b"age,n\r\n63,1\r\n", {}),
        (b"\n\nage,n\n\n63,1\n\n", {}),
        (b"age;n\n63;1\n", {"delimiter": ";"}),
        (gzip.compress(b"age,n\n63,1\n", mtime=0), {}),
        (gzip.compress(b"age,n\n", mtime=0) + gzip.compress(b"63,1\n", mtime=0), {}),
        (b"\"age\",'n'\n63,1\n", {"columns": ["age"]}),
    ],
)
def test_spellings_of_csv(read: Any, contents: bytes, config: dict[str, Any]) -> None:
    dataset = read(contents, label="age", **config)
    assert dataset.frame("train").age.tolist() == [63]


def test_tabs_are_expected_in_tsv(read: Any) -> None:
    assert types(read("a\tb\n1\tx,y\n", "data.tsv")) == {"a": "integer", "b": "string"}


@pytest.mark.parametrize(
    ("contents", "config", "message"),
    [
        ("\n", {}, "the file is empty"),
        ("a;b\n1;2\n", {}, "there is only one column, named 'a;b'\n  hint: say delimiter: \";\""),
        ("a,,c\n1,2,3\n", {}, "column 2 has no name"),
        ("name,n\nM\xfcller,2\n".encode("latin-1"), {}, "the file is not utf-8"),
        (b"name,n\n" + b"x,1\n" * FAR * 2 + b"M\xfc,1\n", {}, "the file is not utf-8: column name, row 1400002"),
        (b"name,n\n" + b"x,1\n" * 5000 + b"M\xfc,1\n", {}, "the file is not utf-8: column name"),
        ("a,b\n1,2\nx,3\n", {"types": {"a": "integer"}}, "data.csv:3: column a: 'x' is no integer"),
        ("a,b\n1,2\n1.5,3\n", {"types": {"a": "integer"}}, "hint: mend the row; or say types: {a: number}"),
        ("a,b\n01.02.2026,2\n", {"types": {"a": "date"}}, "'01.02.2026' is no date"),
        ("a,b\n" + "true,1\n" * FAR + "maybe,1\n", {}, "data.csv:700002: column a: 'maybe' is no boolean"),
        ("a,b\n1,2\n", {"types": {"c": "integer"}}, "there is no column 'c'"),
        ('a,b\n"1,2\n3,4\n', {}, "rows cannot be read, such as line 2"),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 99_999, mtime=0)[:-40], {}, "the gzip file is damaged"),
        ("a,b\n1,2\n", {"compression": "gzip"}, "this is no gzip file"),
    ],
)
def test_csv_files_that_are_not_right(read: Any, contents: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(contents, **config)
    assert message in str(caught.value)


def test_identifiers_are_text_where_it_is_said(read: Any) -> None:
    dataset = read("zip,n\n01067,1\n10115,2\n", types={"zip": "string"})
    assert dataset.frame("train").zip.tolist() == ["01067", "10115"]


def test_columns_and_label_must_fit_together(read: Any) -> None:
    with pytest.raises(ConfigError, match="columns must contain the label b"):
        read("a,b\n1,2\n", columns=["a"], label="b")
    with pytest.raises(ConfigError, match="each only once"):
        read("a,b\n1,2\n", columns=["a", "a"])


# -- JSON lines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (['{"a":1}', '{"a":2.5}'], {"a": "number"}),
        (['{"a":1}', '{"a":2,"b":"x"}'], {"a": "integer", "b": "string"}),
        (['{"a":null}', '{"a":null}'], {"a": "string"}),
        (['{"a":"2026-01-02T10:00:00Z","b":true}'], {"a": "timestamp", "b": "boolean"}),
        (['{"a":1}'] * FAR + ['{"a":2.5}'], {"a": "number"}),
        (['{"a":1}'] * FAR + ['{"a":1,"late":3}'], {"a": "integer", "late": "integer"}),
        (['{"a":null,"b":1}'] * FAR + ['{"a":"x","b":1}'], {"a": "string", "b": "integer"}),
    ],
)
def test_json_lines_have_one_type_a_column(read: Any, lines: list[str], found: dict[str, str]) -> None:
    dataset = read("\n".join(lines) + "\n", "data.jsonl")
    assert types(dataset) == found
    assert dataset.manifest["rows"] == len(lines)


@pytest.mark.parametrize(
    ("contents", "config", "message"),
    [
        ('{"a":1}\n{"a":"x"}\n', {}, "data.jsonl:2: column a holds numbers, but here it is 'x'"),
        ('{"a":1}\n' * FAR + '{"a":"x"}\n', {}, "data.jsonl:700001: column a holds numbers"),
        ('{"a":true}\n{"a":3}\n', {}, "data.jsonl:2: column a holds values of type boolean, but here it is 3"),
        ('{"a":1}\n{"a":\n', {}, "data.jsonl:2: this is no JSON"),
        ('[{"a":1}]\n', {}, "data.jsonl:1: this is an array, no object"),
        ('[\n{"a":1}\n]\n', {}, "one object a line is needed"),
        ('{"a":{"b":1}}\n', {}, "column a is of type struct"),
        ('{"a":1}\n' * FAR + '{"a":1,"c":[3]}\n', {}, "data.jsonl:700001: column c holds [3], no plain value"),
        ('{"a":3.5}\n', {"types": {"a": "integer"}}, "data.jsonl:1: column a: 3.5 is no integer"),
        ('{"age":1}\n', {"label": "agee"}, 'did you mean "age"?'),
        ("\n\n", {}, "the file is empty"),
        (b'{"a":"x"}\n{"a":"M\xfc"}\n', {}, "data.jsonl:2: this is not UTF-8"),
    ],
)
def test_json_lines_that_are_not_right(read: Any, contents: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(contents, "data.jsonl", **config)
    assert message in str(caught.value)


# -- Parquet ---------------------------------------------------------------------------------------------------


def test_kinds_of_parquet_columns(read: Any) -> None:
    table = pa.table(
        {
            "small": pa.array([1, None], pa.int8()),
            "half": pa.array([1.5, float("nan")], pa.float32()),
            "money": pa.array([1, 2]).cast(pa.decimal128(21, 2)),
            "long": pa.array(["x", None], pa.large_string()),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "zoned": pa.array([datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)] * 2, pa.timestamp("us", "+01:00")),
        }
    )
    dataset = read(table, "data.parquet")
    assert types(dataset) == {
        "small": "integer", "half": "number", "money": "number", "long": "string", "kind": "string",
        "zoned": "timestamp",
    }  # fmt: skip
    assert dataset.manifest["missing"] == {"small": 1, "half": 1, "long": 1}
    assert dataset.frame("train").zoned[0] == pd.Timestamp(2026, 1, 2)


@pytest.mark.parametrize(
    ("contents", "config", "message"),
    [
        (pa.table({"a": [[1], [2]], "b": [1, 2]}), {}, "column a is of type list<element: int64>"),
        (pa.table({"a": pa.array([2**63 + 1], pa.uint64())}), {}, "column a holds values that are no integer"),
        (pa.table({"a": ["1", "x"]}), {"types": {"a": "integer"}}, "column a holds values that are no integer"),
        (pa.table({"a": pa.array([], pa.int64())}), {}, "there is a header and no row"),
        (pa.table([[1], [2]], names=["a", "a"]), {}, "columns occur twice: 'a'"),
        ("a,b\n1,2\n", {}, "cannot be read as parquet"),
    ],
)
def test_parquet_files_that_are_not_right(read: Any, contents: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(contents, "data.parquet", **config)
    assert message in str(caught.value)


def test_the_name_must_tell_the_format(read: Any) -> None:
    with pytest.raises(DataError, match="its name does not tell the format"):
        read("a,b\n1,2\n", "data.xlsx")
    assert read("a,b\n1,2\n", "data.txt", format="csv").manifest["rows"] == 1
