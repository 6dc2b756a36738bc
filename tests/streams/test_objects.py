"""Objects of a folder and of S3 become batches: each version once, nothing that is not whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.cli.dev.s3 import S3Server
from edgewright.spec.triggers import ObjectsTrigger
from edgewright.streams.batches import Batch, BatchLog
from edgewright.streams.objects import ObjectSource


def source(uri: str, store: Path, settings: dict[str, Any] | None = None, **config: Any) -> ObjectSource:
    trigger = ObjectsTrigger.model_validate({"uri": uri, "every": 0.1, **config})
    return ObjectSource(trigger, settings or {}, BatchLog(ArtifactStore(store), "pipe", "objects-x"))


def names(one: ObjectSource, batch: Batch | None) -> list[str]:
    if batch is None:
        return []
    with one.batches.store.open(batch.data) as file:
        return [json.loads(line)["value"]["uri"].rpartition("/")[2] for line in file]


def looks(one: ObjectSource, count: int = 8) -> Iterator[list[str]]:
    for _ in range(count):
        found = names(one, one.poll(0.2))
        if found:
            yield found


def taken(one: ObjectSource) -> list[str]:
    return [name for found in looks(one) for name in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    place.mkdir()
    return place


def test_each_version_of_a_file_is_taken_once_also_after_a_restart(folder: Path, tmp_path: Path) -> None:
    (folder / "a b.csv").write_text("x\n1\n")
    one = source(f"file://{folder}/*.csv", tmp_path / "store")
    assert list(looks(one)) == [["a b.csv"]]
    again = source(f"file://{folder}/*.csv", tmp_path / "store")
    assert list(looks(again)) == []
    time.sleep(0.02)
    (folder / "a b.csv").write_text("x\n2\n")
    (folder / "b.csv").write_text("x\n3\n")
    assert taken(again) == ["a b.csv", "b.csv"]


def test_what_is_not_whole_or_does_not_fit_is_not_taken(folder: Path, tmp_path: Path) -> None:
    for name in (".hidden.csv", "half.csv.part", "other.txt"):
        (folder / name).write_text("x")
    (folder / "empty.csv").touch()
    (folder / "deep").mkdir()
    (folder / "deep" / "a.csv").write_text("x")
    assert list(looks(source(f"file://{folder}/*.csv", tmp_path / "store"))) == []
    assert list(looks(source(f"file://{folder}/**/*.csv", tmp_path / "other"))) == [["a.csv"]]


def test_a_file_that_still_grows_is_waited_for(folder: Path, tmp_path: Path) -> None:
    one = source(f"file://{folder}/*.csv", tmp_path / "store")
    for number in range(5):
        (folder / "a.csv").write_text("x\n" * (number + 1))
        assert one.poll(0.2) is None
        one._next = 0
        time.sleep(0.02)
    assert list(looks(one)) == [["a.csv"]]


def test_a_marker_completes_its_folder(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "a.csv").write_text("x")
    (folder / "one" / "_SUCCESS").touch()
    one = source(f"file://{folder}/*/*.csv", tmp_path / "store", when={"marker": "_SUCCESS"})
    assert taken(one) == ["a.csv"]
    (folder / "two" / "_SUCCESS").touch()
    assert taken(one) == ["a.csv"]


def test_objects_are_gathered(folder: Path, tmp_path: Path) -> None:
    one = source(f"file://{folder}/*.csv", tmp_path / "store", batch={"min_objects": 2, "max_wait": 600})
    (folder / "b.csv").write_text("x")
    assert list(looks(one)) == []
    (folder / "a.csv").write_text("x")
    assert list(looks(one)) == [["a.csv", "b.csv"]]


def test_two_sources_take_each_object_once(folder: Path, tmp_path: Path) -> None:
    one, other = (source(f"file://{folder}/*.csv", tmp_path / "store") for _ in range(2))
    for number in range(20):
        (folder / f"{number:02}.csv").write_text("x")
        time.sleep(0.02)
        for look in (one, other):
            look.poll(0.01)
    found = [name for look in (one, other) for taken in looks(look, 4) for name in taken]
    log = one.batches
    head = log.head()
    everything = [name for n in range(1, (head.number if head else 0) + 1) for name in names(one, log.read(n))]
    assert sorted(everything) == [f"{number:02}.csv" for number in range(20)]
    assert set(found) <= set(everything)


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = source(f"file://{tmp_path}/later/*.csv", tmp_path / "store")
    assert list(looks(one, 3)) == []
    assert "waits for the object store" in caplog.text
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.csv").write_text("x")
    assert list(looks(one)) == [["a.csv"]]


def test_objects_of_s3(s3_server: S3Server, tmp_path: Path) -> None:
    import boto3

    keys = {"aws_access_key_id": s3_server.key, "aws_secret_access_key": s3_server.secret, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_server.endpoint, **keys)
    client.create_bucket(Bucket="raw")
    for key in ("in/a+b ü.csv", "in/c.csv", "in/empty.csv", "elsewhere/d.csv"):
        client.put_object(Bucket="raw", Key=key, Body=b"" if "empty" in key else b"x\n1\n")
    extra = {"endpoint_url": s3_server.endpoint, "region_name": "us-east-1"}
    settings = {"login": s3_server.key, "password": s3_server.secret, "extra": extra}
    one = source("s3://raw/in/*.csv", tmp_path / "store", settings)
    assert list(looks(one)) == [["a+b ü.csv", "c.csv"]]
    client.put_object(Bucket="raw", Key="in/c.csv", Body=b"x\n2\n")
    assert list(looks(one)) == [["c.csv"]]


def test_a_listing_of_many_keys_needs_little_memory(folder: Path, tmp_path: Path) -> None:
    import tracemalloc

    one = source(f"file://{folder}/*.csv", tmp_path / "store")

    class Many:
        needs_two_looks = False

        def objects(self) -> Iterator[Any]:
            from edgewright.streams.objects import Object

            for number in range(100_000):
                yield Object(f"file://{folder}/{number}.csv", 1, "v", 0.0)

    one._lister = Many()
    one._catch_up = lambda: None
    one._seen = {found.identity for found in Many().objects()}
    tracemalloc.start()
    assert one.poll(0) is None
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
