"""``transform`` on Spark: real PySpark in its own environment, a real cluster, a real Kafka, a real object store."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.steps.conftest import ref

from edgewright.cli.dev.kafka import KafkaServer
from edgewright.cli.dev.s3 import S3Server
from edgewright.errors import ConfigError, Unavailable, UserCodeError
from edgewright.spec.steps.spark import SparkConfig
from edgewright.spec.steps.transform import TransformConfig
from edgewright.steps import spark
from edgewright.steps.connections import connections_of
from edgewright.steps.data import Dataset
from edgewright.steps.spark_environment import SPARK, state
from edgewright.steps.spark_faults import said, short, unresolved
from edgewright.targets.environments import environment_python

CODE = """
import time
from pathlib import Path

import words
from pyspark.sql import functions as F


def learn(train):
    return {"mean": train.agg(F.mean("chol")).first()[0], "rows": train.count()}


def joined(frame, state, limit: int = 10):
    kinds = frame.groupBy("kind").agg(F.count("*").alias("of_kind"))
    loud = F.udf(words.loud, "string")
    return (frame.join(kinds, "kind").withColumn("above", F.col("chol") - state["mean"])
            .withColumn("seen", F.lit(state["rows"])).withColumn("loud", loud("kind")).where(F.col("id") >= limit))


@F.udf("double")
def broken(number):
    return 1 / (number - number)


def fails(frame):
    return frame.withColumn("z", broken("id"))


def pandas(frame):
    return frame.toPandas()


def slow(frame, began: str):
    Path(began).write_text("now")

    @F.udf("long")
    def wait(number):
        time.sleep(600)
        return number

    return frame.withColumn("z", wait("id"))


def outside(frame, brokers: str, topic: str, file: str):
    session = frame.sparkSession
    options = {"kafka.bootstrap.servers": brokers, "subscribe": topic, "startingOffsets": "earliest"}
    messages = session.read.format("kafka").options(**options).load()
    ages = messages.select(F.from_json(F.col("value").cast("string"), "id LONG, age LONG").alias("m")).select("m.*")
    names = session.read.option("header", True).csv(file).selectExpr("cast(id as long) id", "name")
    return frame.join(ages, "id").join(names, "id", "left")
"""
#: A JVM that starts and compiles less, and keeps to one task.
QUICK = {
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.sql.shuffle.partitions": 2,
}
ROWS = "".join(f"{n},{n % 50 / 2},{'a' if n % 3 else 'b'},{n % 2}\n" for n in range(400))


def opened(result: Any) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


@pytest.fixture
def transform(run_step: Any, pipeline_folder: Path) -> Any:
    (pipeline_folder / "data.csv").write_text("id,chol,kind,y\n" + ROWS)
    (pipeline_folder / "prepare.py").write_text(CODE)
    (pipeline_folder / "words.py").write_text("def loud(word):\n    return word.upper()\n")
    data = ref(run_step("ingest", {"source": "data.csv", "label": "y", "split": {"test": 0.25}}), "dataset")

    def run(name: str = "r1", master: str = "local[2]", on: dict[str, Any] | None = None, **config: Any) -> Any:
        on = {"master": master, **(on or {})}
        on["conf"] = {**QUICK, **on.get("conf", {})}
        return run_step("transform", {"data": data, "spark": on, **config}, run=name, cache="off")

    return run


# -- what needs no Spark -----------------------------------------------------------------------------------------------


def test_a_cluster_that_does_not_answer_is_said_before_anything_starts(transform: Any):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"cluster does not answer: {address}: Connection refused"):
            transform(master=f"spark://{address}", entry="prepare.py:joined")


def test_a_machine_without_java_says_how_to_get_it(transform: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="(?s)there is no Java in JAVA_HOME=.*apt install openjdk-17"):
        transform(entry="prepare.py:joined")


def test_logins_reach_spark_by_a_file_that_only_this_user_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AIRFLOW_CONN_RAW", "aws://KEY:very-secret@/?endpoint_url=http%3A%2F%2F127.0.0.1%3A9000")
    monkeypatch.setenv("AIRFLOW_CONN_BROKERS", '{"conn_type": "kafka", "extra": {"bootstrap.servers": "h:1"}}')
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    config = SparkConfig(
        connections=["raw", "brokers"], memory="2g", packages=["a:b:1"], conf={"spark.ui.enabled": True}
    )
    spark._write_settings(tmp_path, config, "runs/x")
    file = tmp_path / "conf" / "spark-defaults.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = dict(line.split(" ", 1) for line in file.read_text().splitlines())
    assert lines["spark.hadoop.fs.s3a.secret.key"] == "very-secret"
    assert lines["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9000"
    assert lines["spark.driver.memory"] == "2g"
    assert lines["spark.ui.enabled"] == "true"
    assert lines["spark.driver.bindAddress"] == "127.0.0.1"
    monkeypatch.delenv("AIRFLOW_CONN_BROKERS")
    with pytest.raises(ConfigError, match="no connection 'brokers'"):
        spark.settings(config, "x", tmp_path)


def test_the_operator_finds_the_connections_of_spark():
    assert "raw" in connections_of({"spark": {"connections": ["raw"]}})
    assert "raw" not in connections_of({"spark": {}})


def test_what_reads_from_elsewhere_is_not_cached():
    data = {"kind": "dataset", "uri": "file:///x", "sha256": "0" * 64, "size": 1, "meta": {}}

    def asked(**on: Any) -> Any:
        return state(TransformConfig.model_validate({"data": data, "entry": "a.py:f", "spark": on}), None)  # type: ignore[arg-type]

    assert set(asked()) == {"environment", "python"}
    assert asked(packages=["a:b:1"]) is None
    assert asked(connections=["raw"]) is None


def test_a_jvms_words_become_one_line():
    assert not said("\tat org.apache.spark.deploy.SparkSubmit.main(SparkSubmit.scala)")
    assert not said("\tfound org.slf4j#slf4j-api;2.0.16 in central")
    assert said("WARN TaskSchedulerImpl: Initial job has not accepted any resources")
    line = "java.lang.RuntimeException: [unresolved dependency: org.acme#anvil_2.13;9.9.9: not found]"
    assert unresolved(["", line]) == "org.acme:anvil_2.13:9.9.9"
    long = "[UNRESOLVED_COLUMN] A column `aeg` cannot be resolved. Did you mean `age`?;\n'Project ['aeg]\n+- Relation"
    assert short(long) == "[UNRESOLVED_COLUMN] A column `aeg` cannot be resolved. Did you mean `age`?"


# -- real Spark --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_state_is_learnt_from_train_and_the_same_data_give_the_same_bytes(transform: Any):
    result = transform(fit="prepare.py:learn", entry="prepare.py:joined", args={"limit": 20})
    found = opened(result)
    train, test = found.frame("train"), found.frame("test")
    assert sorted([*train["id"], *test["id"]]) == list(range(20, 400))
    assert set(test["seen"]) == {300}
    assert set(test["loud"]) == {"A", "B"}
    kinds = {c["name"]: c["type"] for c in found.columns}
    assert kinds["above"] == "number"
    assert kinds["of_kind"] == "integer"
    record = found.transforms[0]
    assert (record["kind"], record["engine"]) == ("function", "spark 4.0.0")
    state = Path(result.outputs["state"].uri.removeprefix("file://"), "state.json")
    assert json.loads(state.read_text())["value"]["rows"] == 300
    again = transform("r2", master="local[1]", fit="prepare.py:learn", entry="prepare.py:joined", args={"limit": 20})
    assert again.outputs["dataset"].sha256 == result.outputs["dataset"].sha256


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_query_sees_its_part_and_train(transform: Any):
    sql = "SELECT id, chol - (SELECT avg(chol) FROM train) AS above, y FROM data WHERE id >= :least ORDER BY id DESC"
    found = opened(transform(sql=sql, args={"least": 100}))
    assert list(found.frame("test")["id"]) == sorted(found.frame("test")["id"], reverse=True)
    assert sum(found.rows(part) for part in found.part_names) == 300


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"entry": "prepare.py:fails"},
            r"prepare.py:22: prepare.py:fails: ZeroDivisionError: .*division by zero\n",
        ),
        ({"entry": "prepare.py:pandas"}, "returned a pandas DataFrame, not a Spark DataFrame"),
        ({"entry": "prepare.py:slow", "args": {"begann": "x"}}, '(?s)no such argument: begann; did you mean "began"'),
        ({"sql": "SELECT aeg, y FROM data"}, "cannot be resolved. Did you mean one of the following"),
    ],
)
def test_what_the_user_did_wrong_is_said_in_a_line(transform: Any, config: dict[str, Any], says: str):
    with pytest.raises((UserCodeError, ConfigError), match=says) as caught:
        transform(**config)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_package_that_does_not_exist_is_named(transform: Any):
    with pytest.raises(ConfigError, match=r"there is no package org\.apache\.spark:no-such-thing_2\.13:0\.0\.1"):
        transform(entry="prepare.py:joined", on={"packages": ["org.apache.spark:no-such-thing_2.13:0.0.1"]})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_connectors_read_a_topic_and_an_object(
    transform: Any, kafka: KafkaServer, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    import boto3
    from confluent_kafka import Producer

    login = {"aws_access_key_id": s3_server.key, "aws_secret_access_key": s3_server.secret, "region_name": "us-east-1"}
    bucket, topic = f"raw-{uuid.uuid4().hex[:8]}", f"ages-{uuid.uuid4().hex[:8]}"
    client = boto3.client("s3", endpoint_url=s3_server.endpoint, **login)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="names.csv", Body="id,name\n" + "".join(f"{n},n{n}\n" for n in range(350)))
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(400):
        producer.produce(topic, json.dumps({"id": number, "age": number + 1000}).encode())
    assert producer.flush(60) == 0
    connection = {"conn_type": "aws", "login": s3_server.key, "password": s3_server.secret,
                  "extra": {"endpoint_url": s3_server.endpoint}}  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_RAW", json.dumps(connection))
    # the whole of Amazon's library is 540 MB; these are the parts of it that reading needs
    amazon = [f"software.amazon.awssdk:{name}:2.25.0" for name in ("s3", "s3-transfer-manager", "sts")]
    packages = ["org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0", "org.apache.hadoop:hadoop-aws:3.4.1", *amazon]
    found = opened(
        transform(
            entry="prepare.py:outside",
            args={"brokers": kafka.bootstrap, "topic": topic, "file": f"s3a://{bucket}/names.csv"},
            on={
                "packages": packages,
                "connections": ["raw"],
                "conf": {"spark.jars.excludes": "software.amazon.awssdk:bundle"},
            },
        )
    )
    frame = found.frame("train")
    assert len(frame) == 300
    assert (frame["age"] == frame["id"] + 1000).all()
    assert frame.loc[frame["id"] == frame[frame["id"] < 350]["id"].max(), "name"].notna().all()
    assert frame.loc[frame["id"] >= 350, "name"].isna().all()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A standalone cluster of one worker, from PySpark's own jars; it yields the master's address."""
    home = Path(environment_python(SPARK)).parents[1]
    (package,) = home.glob("lib/python*/site-packages/pyspark")
    ports = _free_ports(3)
    env = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(package), "SPARK_WORKER_DIR": str(tmp_path),
           "SPARK_DAEMON_MEMORY": "256m", "PYSPARK_PYTHON": str(home / "bin" / "python")}  # fmt: skip
    master = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", str(ports[0]), "--webui-port",
              str(ports[1])]  # fmt: skip
    address = f"spark://127.0.0.1:{ports[0]}"
    worker = ["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--webui-port", str(ports[2]),
              "--memory", "1g", "--cores", "2", address]  # fmt: skip
    running = []
    try:
        for name, what in (("master", master), ("worker", worker)):
            with (tmp_path / f"{name}.log").open("wb") as log:
                command = [str(package / "bin" / "spark-class"), *what]
                running.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))
            until = "I have been elected leader" if name == "master" else "Successfully registered with master"
            deadline = time.monotonic() + 120
            while until not in (tmp_path / f"{name}.log").read_text():
                assert running[-1].poll() is None, (tmp_path / f"{name}.log").read_text()
                assert time.monotonic() < deadline, (tmp_path / f"{name}.log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        for process in running[::-1]:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_standalone_cluster_does_the_work(transform: Any, cluster: str, tmp_path: Path):
    place = tmp_path / "shared"
    place.mkdir()
    on = {"folder": str(place), "conf": {"spark.executor.memory": "512m"}}
    found = opened(transform(master=cluster, fit="prepare.py:learn", entry="prepare.py:joined", on=on))
    assert sum(found.rows(part) for part in found.part_names) == 390
    assert list(place.iterdir()) == []  # nothing stays


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_that_is_ended_leaves_no_jvm(
    transform: Any, run_step: Any, pipeline_folder: Path, tmp_path: Path, number: signal.Signals
):
    data = ref(run_step("ingest", {"source": "data.csv", "label": "y"}, run="r9"), "dataset")
    began = tmp_path / "began.txt"
    config = {"data": data, "entry": "prepare.py:slow", "args": {"began": str(began)}, "spark": {"conf": QUICK}}
    request = {
        "version": 1, "step": "transform", "config": config, "store": str(tmp_path / "store"),
        "identity": {"dag_id": "test", "run_id": "ended", "task_id": "features"},
        "source": {"folder": str(pipeline_folder)},
    }  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps(request))
    step = subprocess.Popen([sys.executable, "-m", "edgewright.steps", str(tmp_path / "request.json")])
    deadline = time.monotonic() + 300
    while not began.exists():
        assert step.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    started = psutil.Process(step.pid).children(recursive=True)
    assert any(process.name() == "java" for process in started)
    os.kill(step.pid, number)
    step.wait(60)
    _, alive = psutil.wait_procs(started, timeout=120)
    assert not alive
