"""``score`` from a bucket into a bucket, with the credentials of an Airflow connection."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from support.releases import model_folder

from edgewright.artifacts import ArtifactStore


def test_objects_are_scored_once(run_step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        extra = {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "login": "k", "password": "s", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
        client = boto3.client("s3", aws_access_key_id="k", aws_secret_access_key="s", **extra)
        client.create_bucket(Bucket="scoring")
        for name in "xy":
            client.put_object(Bucket="scoring", Key=f"raw/{name}.csv", Body=b"a,b,c\n" + b"1,2,3\n" * 500)
        model = ArtifactStore(tmp_path / "store").put(model_folder(tmp_path / "model"), "model", {})
        config = {
            "model": model.model_dump(mode="json"), "source": "s3://scoring/raw/*.csv", "to": "s3://scoring/out",
            "connection": "lake", "processes": 1, "shard_mib": 0.002,
        }  # fmt: skip
        first = run_step("score", config)
        assert (first.metrics["rows"], first.metrics["shards_reused"]) == (1000, 0)
        assert run_step("score", config).metrics["shards_reused"] == first.metrics["shards"] > 2
        latest = json.loads(client.get_object(Bucket="scoring", Key="out/latest.json")["Body"].read())
        assert [file["file"] for file in latest["files"]] == ["s3://scoring/raw/x.csv", "s3://scoring/raw/y.csv"]
        assert latest["complete"]
    finally:
        server.stop()
