"""A node as a process: answers, power loss, MQTT, and what it loads."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.edge import ROW, Bundles, Process, eventually

from edgewright.cli.dev.mosquitto import MosquittoServer

Start = Callable[..., Process]
BODY = {"dataframe_records": [ROW]}


def test_a_node_answers_and_updates_while_it_answers(bundles: Bundles, tmp_path: Path, start: Start) -> None:
    offered = tmp_path / "offered"
    offered.mkdir()
    node = start(offered, "--key", str(bundles.public))
    assert node.get("/invocations", BODY)[0] == 503
    bundles.write(offered, 1)
    eventually(lambda: node.version() == "1", "the first bundle")
    status, answer = node.get("/invocations", BODY)
    assert status == 200
    assert answer["model"]["version"] == "1"
    status, answer = node.get("/invocations", {"dataframe_records": [{"a": 1}]})
    assert status == 400
    assert "missing column: b" in answer["error"]["message"]
    bundles.write(offered, 2)
    seen = set()

    def updated() -> bool:
        status, answer = node.get("/invocations", BODY)
        assert status == 200
        seen.add(answer["model"]["version"])
        return "2" in seen

    eventually(updated, "the second bundle")
    assert node.stop() == 0


def test_an_address_beyond_loopback_needs_a_token(bundles: Bundles, tmp_path: Path, start: Start) -> None:
    bundles.write(tmp_path / "offered", 1)
    open_to_all = start(tmp_path / "offered", "--host", "0.0.0.0", home="refused")
    assert open_to_all.process.wait(120) == 1
    assert "needs a token" in open_to_all.text
    token = tmp_path / "token"
    token.write_text("a-long-random-text-of-32-letters")
    node = start(tmp_path / "offered", "--token-file", str(token))
    node.url()
    assert node.get("/invocations", BODY)[0] == 401
    assert node.get("/health", authorization="Bearer wrong-wrong-wrong-wrong")[0] == 403
    right = {"authorization": f"Bearer {token.read_text()}"}
    eventually(lambda: node.get("/invocations", BODY, **right)[0] == 200, "an answer")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_whose_power_fails_in_an_update_has_a_whole_bundle(
    bundles: Bundles, tmp_path: Path, start: Start
) -> None:
    offered = tmp_path / "offered"
    bundles.write(offered, 1)
    first = start(offered, "--key", str(bundles.public))
    eventually(lambda: first.version() == "1", "the first bundle")
    first.stop()
    newest, ended = 1, set()
    for point in range(20):
        node = start(offered, "--key", str(bundles.public))
        node.url()
        newest += 1
        bundles.write(offered, newest)
        time.sleep(random.Random(point).uniform(0, 0.15) * point)  # anywhere in the update, and behind it
        node.kill()
        state = json.loads((tmp_path / "home/state.json").read_text())
        ended.add(state["current"]["version"] == newest)
        assert (tmp_path / "home/slots" / state["current"]["slot"] / "manifest.json").exists()
        empty = tmp_path / "empty"
        empty.mkdir(exist_ok=True)
        after = start(empty, "--key", str(bundles.public))  # offline: only what it has
        status, answer = after.get("/invocations", BODY)
        assert status == 200, after.text
        assert answer["model"]["version"] == str(state["current"]["version"])
        after.stop()
    assert ended == {True, False}, "no kill came before, or none after the swap"


def test_requests_and_reports_go_over_mqtt(
    bundles: Bundles,
    tmp_path: Path,
    start: Start,
    mosquitto: MosquittoServer,
) -> None:
    import paho.mqtt.client as mqtt

    bundles.write(tmp_path / "offered", 1)
    heard: dict[str, list[Any]] = {"predictions": [], "reports": []}
    subscribed = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _, __, m: heard[m.topic.rpartition("/")[2]].append(json.loads(m.payload))
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", mosquitto.port)
    client.subscribe([("edgewright/n1/predictions", 1), ("edgewright/n1/reports", 1)])
    client.loop_start()
    try:
        assert subscribed.wait(60)
        node = start(tmp_path / "offered", "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}", "--report", "0.3")
        eventually(lambda: node.version() == "1", "the bundle")
        row = {"a": 99.0, "b": None, "c": 1.0}

        def asked() -> bool:
            client.publish("edgewright/n1/predict", json.dumps({"dataframe_records": [row]}), qos=1)
            time.sleep(0.1)
            return bool(heard["predictions"])

        eventually(asked, "an answer")
        assert heard["predictions"][0]["model"]["version"] == "1"
        told = eventually(lambda: [r for r in heard["reports"] if r.get("rows")], "a report")[0]
        assert (told["format"], told["node"], told["model"]["version"]) == ("edgewright.edge-report/1", "n1", "1")
        assert told["inputs"]["a"]["outside"] == 1.0  # 99 is far beyond the range in training
        assert told["inputs"]["b"]["missing"] == told["rows"]
        assert told["latency_us"]["p50"] > 0
        client.publish("edgewright/n1/predict", b"{", qos=1)
        eventually(lambda: [a for a in heard["predictions"] if a.get("status") == 400], "the fault")
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_node_loads_nothing_of_the_installation() -> None:
    code = (
        "import sys, edgewright.cli.edge, edgewright.edge.run, edgewright.bundles.attestation; "
        "bad = {'airflow', 'mlflow', 'sklearn', 'pandas', 'pyarrow', 'pydantic', 'onnx', 'confluent_kafka', 's3fs'}; "
        "print(sorted(bad & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
