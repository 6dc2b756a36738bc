"""ingest: formats, types, stable splits, and every bad source."""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.server
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from edgewright.errors import ConfigError, DataError, Skipped, Unavailable
from edgewright.steps.contract import StepResult
from edgewright.steps.data import Dataset

CLEVELAND = Path(__file__).parents[2] / "dags" / "bracelet" / "cleveland.csv"
SPLIT = {"test": 0.25, "seed": 7, "stratify": True}


def opened(result: StepResult) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


@pytest.fixture
def cleveland(pipeline_folder: Path) -> Path:
    place = pipeline_folder / "cleveland.csv"
    place.write_bytes(CLEVELAND.read_bytes())
    return place


def write(folder: Path, text: str, name: str = "data.csv") -> str:
    (folder / name).write_text(text)
    return name


def test_the_manifest_says_what_is_in_the_data(run_step: Any, cleveland: Path) -> None:
    result = run_step("ingest", {"source": "cleveland.csv", "label": "num", "split": SPLIT})
    manifest = opened(result).manifest
    assert manifest["rows"] == 303
    assert manifest["missing"] == {"ca": 4, "thal": 2}
    assert manifest["classes"] == {"0": 164, "1": 139}
    assert manifest["problem"] == "classification"
    assert manifest["source"]["uri"] == "cleveland.csv"
    assert result.outputs["dataset"].meta == {
        "rows": 303, "columns": 14, "label": "num", "parts": {"train": 227, "test": 76}
    }  # fmt: skip


def test_stratified_parts_keep_the_share_of_each_class(run_step: Any, cleveland: Path) -> None:
    dataset = opened(run_step("ingest", {"source": "cleveland.csv", "label": "num", "split": SPLIT}))
    shares = [dataset.y(part).mean() for part in ("train", "test")]
    assert abs(shares[0] - shares[1]) < 0.01


def test_the_split_does_not_follow_the_order_of_the_rows(run_step: Any, cleveland: Path) -> None:
    lines = cleveland.read_text().splitlines()
    config = {"source": "cleveland.csv", "label": "num", "split": SPLIT}
    before = opened(run_step("ingest", config)).frame("test")
    cleveland.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    after = opened(run_step("ingest", config, run="r2")).frame("test")
    order = list(before.columns)
    pd.testing.assert_frame_equal(
        before.sort_values(order).reset_index(drop=True), after.sort_values(order).reset_index(drop=True)
    )


def test_equal_rows_land_in_the_same_part(run_step: Any, pipeline_folder: Path) -> None:
    rows = [f"{number % 40},{number % 40 % 2}" for number in range(400)]
    name = write(pipeline_folder, "x,y\n" + "\n".join(rows) + "\n")
    dataset = opened(run_step("ingest", {"source": name, "label": "y", "split": SPLIT}))
    assert not set(dataset.X("train").x) & set(dataset.X("test").x)


def test_another_seed_gives_another_split(run_step: Any, cleveland: Path) -> None:
    config = {"source": "cleveland.csv", "label": "num"}
    one = run_step("ingest", {**config, "split": SPLIT})
    two = run_step("ingest", {**config, "split": {**SPLIT, "seed": 8}}, run="r2")
    assert one.outputs["dataset"].sha256 != two.outputs["dataset"].sha256


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "jsonl"])
def test_every_format_gives_the_same_rows(run_step: Any, pipeline_folder: Path, kind: str) -> None:
    frame = pd.read_csv(CLEVELAND)
    place = pipeline_folder / f"data.{kind}"
    if kind == "csv":
        frame.to_csv(place, index=False)
    elif kind == "csv.gz":
        place.write_bytes(gzip.compress(CLEVELAND.read_bytes()))
    elif kind == "parquet":
        frame.to_parquet(place, index=False)
    else:
        frame.to_json(place, orient="records", lines=True)
    dataset = opened(run_step("ingest", {"source": place.name, "label": "num"}))
    found = dataset.frame("train")
    pd.testing.assert_frame_equal(found.astype(float), frame.astype(float))
    assert dataset.part_names == ["train"]


def test_columns_are_chosen_and_ordered(run_step: Any, cleveland: Path) -> None:
    config = {"source": "cleveland.csv", "label": "num", "columns": ["chol", "num", "age"]}
    assert list(opened(run_step("ingest", config)).frame("train").columns) == ["chol", "num", "age"]


def test_whole_numbers_widen_to_decimals_far_down_the_file(run_step: Any, pipeline_folder: Path) -> None:
    name = write(pipeline_folder, "a,b\n" + "1,2\n" * 900_000 + "1,2.5\n")
    dataset = opened(run_step("ingest", {"source": name}))
    assert [column["type"] for column in dataset.columns] == ["integer", "number"]
    assert dataset.rows("train") == 900_001


def test_memory_does_not_follow_from_how_rows_are_grouped(run_step: Any, pipeline_folder: Path) -> None:
    name = write(pipeline_folder, "a,b\n" + "".join(f"{n},{n % 7}\n" for n in range(200_000)))
    result = run_step("ingest", {"source": name, "label": "b", "split": SPLIT})
    assert all(batch.num_rows <= 65_536 for batch in opened(result).batches("train"))


def test_text_in_a_column_of_numbers_names_the_line(run_step: Any, pipeline_folder: Path) -> None:
    name = write(pipeline_folder, "a,b\n" + "1,2\n" * 10 + "1,high\n" + "1,2\n" * 10)
    with pytest.raises(DataError, match=r"data.csv:12: column b holds numbers, but here it is 'high'"):
        run_step("ingest", {"source": name})


def test_text_far_down_a_column_of_numbers_names_the_line(run_step: Any, pipeline_folder: Path) -> None:
    name = write(pipeline_folder, "a,b\n" + "1,2\n" * 1_500_000 + "1,high\n")
    with pytest.raises(DataError, match=r"data.csv:1500002: column b holds numbers, but here it is 'high'"):
        run_step("ingest", {"source": name})


def test_a_type_that_is_said_settles_it(run_step: Any, pipeline_folder: Path) -> None:
    name = write(pipeline_folder, "a,b\n" + "1,2\n" * 10 + "1,high\n")
    dataset = opened(run_step("ingest", {"source": name, "types": {"b": "string"}}))
    assert dataset.frame("train").b.iloc[-1] == "high"


@pytest.mark.parametrize(
    ("text", "config", "message"),
    [
        ("", {}, "the file is empty"),
        ("a,b\n", {}, "there is a header and no row"),
        ("a,b\n1,2\n", {"label": "c"}, "there is no column 'c'"),
        ("a,b\n1,2\n", {"columns": ["a", "bb"]}, "there is no column 'bb'"),
        ("a,a\n1,2\n", {}, "columns occur twice: 'a'"),
        ("a,b\n1,2\n3,4,5\n", {}, "1 rows cannot be read, such as line 3: 3 values instead of 2"),
        ("a,y\n1,0\n2,\n", {"label": "y"}, "the label y is missing in row 2"),
        ("a,b\n1,2\n", {"encoding": "utf-99"}, "no such encoding"),
    ],
)
def test_bad_files_are_explained(
    run_step: Any, pipeline_folder: Path, text: str, config: dict[str, Any], message: str
) -> None:
    name = write(pipeline_folder, text)
    with pytest.raises(DataError, match=message):
        run_step("ingest", {"source": name, **config})


def test_bad_rows_are_counted_where_some_are_allowed(run_step: Any, pipeline_folder: Path) -> None:
    name = write(pipeline_folder, "a,b\n" + "1,2\n" * 99 + "3,4,5\n")
    result = run_step("ingest", {"source": name, "max_bad_rows": 0.01})
    assert result.metrics["bad_rows"] == 1
    assert "1 unreadable rows were left out" in result.notes[1]


def test_a_missing_file_names_what_is_there(run_step: Any, cleveland: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: clevland.csv") as caught:
        run_step("ingest", {"source": "clevland.csv"})
    assert "cleveland.csv" in str(caught.value)


def test_a_path_cannot_leave_the_folder(run_step: Any, cleveland: Path) -> None:
    with pytest.raises(ConfigError, match="leads out of the pipeline's folder"):
        run_step("ingest", {"source": "../secret.csv"})


def test_what_is_no_gzip_is_explained(run_step: Any, pipeline_folder: Path) -> None:
    name = write(pipeline_folder, "a,b\n1,2\n", "data.csv.gz")
    with pytest.raises(DataError, match="this is no gzip file"):
        run_step("ingest", {"source": name})


def test_a_broken_parquet_is_explained(run_step: Any, pipeline_folder: Path) -> None:
    name = write(pipeline_folder, "PAR1 nothing", "data.parquet")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        run_step("ingest", {"source": name})


def test_too_few_rows_skip_with_the_reason(run_step: Any, cleveland: Path) -> None:
    with pytest.raises(Skipped, match="303 rows are fewer than minimum.rows: 1000"):
        run_step("ingest", {"source": "cleveland.csv", "minimum": {"rows": 1000}})
    with pytest.raises(Skipped, match="139 rows of class 1 are fewer"):
        run_step("ingest", {"source": "cleveland.csv", "label": "num", "minimum": {"per_class": 150}})


def test_a_holdout_is_a_part_of_its_own(run_step: Any, cleveland: Path, pipeline_folder: Path) -> None:
    lines = CLEVELAND.read_text().splitlines()
    write(pipeline_folder, "\n".join(lines[:250]) + "\n", "main.csv")
    write(pipeline_folder, "\n".join([lines[0], *lines[250:]]) + "\n", "late.csv")
    dataset = opened(run_step("ingest", {"source": "main.csv", "label": "num", "holdout": "late.csv"}))
    assert dataset.part_names == ["train", "holdout"]
    assert dataset.evaluation_part() == "holdout"


def test_rows_of_the_holdout_among_the_others_are_leakage(
    run_step: Any, cleveland: Path, pipeline_folder: Path
) -> None:
    lines = CLEVELAND.read_text().splitlines()
    write(pipeline_folder, "\n".join([lines[0], *lines[300:]]) + "\n", "late.csv")
    with pytest.raises(DataError, match=r"4 rows of the source stand in the holdout too \(leakage\)"):
        run_step("ingest", {"source": "cleveland.csv", "label": "num", "holdout": "late.csv"})


def test_an_unchanged_source_is_not_read_again(run_step: Any, cleveland: Path) -> None:
    config = {"source": "cleveland.csv", "label": "num", "split": SPLIT}
    run_step("ingest", config)
    assert run_step("ingest", config, run="r2").cache.hit
    cleveland.write_text(cleveland.read_text() + "63,1,1,145,233,1,2,150,0,2.3,3,0,6,1\n")
    assert not run_step("ingest", config, run="r3").cache.hit


# -- http ------------------------------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_http_is_downloaded_and_cached_by_what_the_server_says(run_step: Any, web: tuple[str, Path]) -> None:
    url, folder = web
    (folder / "heart.csv").write_bytes(CLEVELAND.read_bytes())
    config = {"source": f"{url}/heart.csv", "label": "num"}
    assert opened(run_step("ingest", config)).manifest["rows"] == 303
    assert run_step("ingest", config, run="r2").cache.hit
    (folder / "heart.csv").write_bytes(CLEVELAND.read_bytes() + b"63,1,1,145,233,1,2,150,0,2.3,3,0,6,1\n")
    os.utime(folder / "heart.csv", (1, 1))
    assert not run_step("ingest", config, run="r3").cache.hit


def test_http_faults_are_the_users_or_the_servers(run_step: Any, web: tuple[str, Path]) -> None:
    url, _ = web
    with pytest.raises(DataError, match="the server answered 404"):
        run_step("ingest", {"source": f"{url}/none.csv"})


def test_a_server_that_is_away_is_tried_again_then_said(run_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(Unavailable, match="the server does not answer"):
        run_step("ingest", {"source": "http://127.0.0.1:9/none.csv"})


# -- S3 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket on a real S3 server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    # the server's memory is this process's: an earlier test may have made the bucket
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="raw", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    yield client
    server.stop()
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def test_s3_is_read_and_cached_by_version(run_step: Any, bucket: Any) -> None:
    bucket.put_object(Bucket="raw", Key="heart.csv", Body=CLEVELAND.read_bytes())
    config = {"source": "s3://raw/heart.csv", "label": "num"}
    assert opened(run_step("ingest", config)).manifest["rows"] == 303
    assert run_step("ingest", config, run="r2").cache.hit
    with pytest.raises(DataError, match="no such object"):
        run_step("ingest", {"source": "s3://raw/none.csv"}, run="r3")


@pytest.mark.parametrize("form", ["uri", "json"])
def test_s3_with_the_credentials_of_a_connection(
    run_step: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    bucket.put_object(Bucket="raw", Key="heart.csv", Body=CLEVELAND.read_bytes())
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = {"source": "s3://raw/heart.csv", "label": "num", "connection": "raw_store"}
    with pytest.raises(ConfigError, match="no connection 'raw_store'"):
        run_step("ingest", config)
    extra = {"endpoint_url": endpoint, "region_name": "eu-west-1"}
    if form == "uri":
        text = f"aws://key:s%2Fcret@/?{urllib.parse.urlencode(extra)}"
    else:
        text = json.dumps({"conn_type": "aws", "login": "key", "password": "s/cret", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_RAW_STORE", text)
    result = run_step("ingest", config, run="r2")
    assert opened(result).manifest["rows"] == 303
    assert "cret" not in json.dumps(result.model_dump(mode="json"))


def test_a_connection_for_a_plain_file_is_refused(run_step: Any, cleveland: Path) -> None:
    with pytest.raises(ConfigError, match="connection is for s3:// sources"):
        run_step("ingest", {"source": "cleveland.csv", "connection": "x"})


def test_the_result_document_says_what_was_made(run_step: Any, cleveland: Path, tmp_path: Path) -> None:
    run_step("ingest", {"source": "cleveland.csv", "label": "num"})
    document = json.loads((tmp_path / "store/runs/test/r1/ingest/result.json").read_text())
    assert document["state"] == "success"
    assert document["outputs"]["dataset"]["kind"] == "dataset"
