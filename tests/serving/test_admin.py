"""Loading, swapping, rolling back, restarting: the model that answers is always one that passed its self-test."""

from __future__ import annotations

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import prediction_service as support
from support.prediction_service import ROWS, ReleaseMaker, ServiceProcess


def version_of(service: ServiceProcess) -> str:
    answer = service.predict(ROWS)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["version"])


def test_nothing_is_served_at_first(service: ServiceProcess) -> None:
    assert service.client.get("/ping").status_code == 503
    assert service.client.get("/health").json()["status"] == "unavailable"
    answer = service.predict(ROWS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no-model")
    assert service.client.get("/admin/models").json() == {"models": [], "problems": {}}
    assert service.client.get("/docs").status_code == 200


def test_load_swap_roll_back_and_remove(service: ServiceProcess, releases: ReleaseMaker) -> None:
    releases.make(1)
    releases.make(2)
    first = service.put("bracelet", 1).json()
    assert (first["changed"], first["previous"]) == (True, None)
    second = service.put("bracelet", 2).json()
    assert second["previous"] == {"name": "bracelet", "version": "1", "variant": "onnx"}
    assert second["model"]["self_test"]["largest_difference"] == 0
    assert version_of(service) == "2"
    again = service.put("bracelet", 2).json()
    assert (again["changed"], again["model"]["previous"]["version"]) == (False, "1")
    back = service.client.post("/admin/models/bracelet/rollback").json()
    assert (back["model"]["version"], back["previous"]["version"]) == ("1", "2")
    assert version_of(service) == "1"
    assert service.client.delete("/admin/models/bracelet").json()["removed"]["version"] == "1"
    assert service.predict(ROWS).status_code == 503
    assert service.client.delete("/admin/models/bracelet").status_code == 503
    assert not (service.home / "models" / "bracelet").exists()


def test_only_what_is_served_and_the_one_before_stay_on_disk(service: ServiceProcess, releases: ReleaseMaker) -> None:
    for version in (1, 2, 3):
        releases.make(version)
        assert service.put("bracelet", version).status_code == 200
    assert sorted(p.name for p in (service.home / "models" / "bracelet").iterdir()) == ["2", "3"]


def _golden_off(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["outputs"]["onnx"][1] = [0.5, 0.5]
    (folder / "golden.json").write_text(json.dumps(golden))


def _flip(folder: Path) -> None:
    path = folder / "variants/onnx/model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _document(folder: Path, **change: Any) -> None:
    path = folder / "variants/onnx/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    ("break_it", "code", "part"),
    [
        (_golden_off, "rejected", "self-test failed: row 1 scores"),
        (_flip, "damaged", "does not match its sha256"),
        (lambda f: (f / "golden.json").unlink(), "damaged", "golden.json cannot be read"),
        (
            lambda f: (f / "golden.json").write_text('{"inputs": [], "outputs": {}}'),
            "rejected",
            "nothing can be tested",
        ),
        (lambda f: (f / "variants/onnx/model.json").write_text("{"), "damaged", "model.json cannot be read"),
        (lambda f: (f / "variants/onnx/model.onnx").unlink(), "damaged", "cannot be read"),
        (lambda f: _document(f, file="../../../../../etc/passwd"), "rejected", "leads out of the release"),
        (lambda f: _document(f, classes=[0]), "rejected", "self-test failed: the model cannot answer"),
        (lambda f: _document(f, features=support.NUMBERS[:2]), "rejected", "self-test failed"),
        (lambda f: _document(f, problem="regression"), "rejected", "outputs are label, probabilities"),
    ],
)
def test_a_refused_model_leaves_the_old_one(
    service: ServiceProcess, releases: ReleaseMaker, break_it: Any, code: str, part: str
) -> None:
    releases.make(1)
    break_it(releases.make(2))
    assert service.put("bracelet", 1).status_code == 200
    answer = service.put("bracelet", 2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, code), answer.text
    assert part in answer.json()["error"]["message"]
    assert version_of(service) == "1"
    assert [m["version"] for m in service.client.get("/admin/models").json()["models"]] == ["1"]


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (support.foreign_domain, "operators of the domain com.example"),
        (support.external_data, "keeps data in other files"),
        (lambda: b"no protobuf at all", "not an ONNX model"),
        (lambda: b"", "onnxruntime cannot load the model"),
    ],
)
def test_unsafe_models_are_refused(service: ServiceProcess, releases: ReleaseMaker, model: Any, part: str) -> None:
    features = [{"name": n, "type": "number"} for n in ("a", "b")]
    releases.make(
        1, {"onnx": model()}, features=features, rows=[{"a": 1, "b": 2}], problem="regression", classes=(),
        golden={"onnx": [[1.0]]},
    )  # fmt: skip
    answer = service.put("bracelet", 1)
    assert answer.status_code == 409
    assert part in answer.json()["error"]["message"]


def test_variants_and_pickles(service: ServiceProcess, releases: ReleaseMaker) -> None:
    both = {"onnx": support.classifier(-1), "onnx-int8": support.classifier(-1.001)}
    releases.make(1, both, pickled=True)
    assert service.put("bracelet", 1).json()["model"]["variant"] == "onnx-int8"
    assert service.put("bracelet", 1, variant="onnx").json()["model"]["variant"] == "onnx"
    pickle = service.put("bracelet", 1, variant="sklearn")
    assert pickle.status_code == 409
    assert "loads ONNX only" in pickle.json()["error"]["message"]
    missing = service.put("bracelet", 1, variant="onnx-int4").json()["error"]
    assert missing["message"] == "the release has no variant onnx-int4"
    assert "onnx-int8" in missing["hint"]


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("..%2F..%2Fetc", {"version": "1"}, 404),
        ("%2e%2e", {"version": "1"}, 400),
        (".hidden", {"version": "1"}, 400),
        ("a%00b", {"version": "1"}, 400),
        ("bracelet", {"version": "../1"}, 400),
        ("bracelet", {"version": "0"}, 400),
        ("bracelet", {"version": "1", "variant": "../../x"}, 409),
        ("bracelet", {"version": "99"}, 404),
        ("nobody", {"version": "1"}, 404),
        ("bracelet", {}, 400),
        ("bracelet", {"version": "1", "alias": "champion"}, 400),
        ("bracelet", {"version": "1", "colour": "red"}, 400),
        ("bracelet", {"version": "1", "digest": "0" * 64}, 409),
    ],
)
def test_bad_administration(
    service: ServiceProcess, releases: ReleaseMaker, name: str, body: dict[str, str], status: int
) -> None:
    releases.make(1)
    answer = service.client.put(f"/admin/models/{name}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert service.client.get("/ping").status_code == 503


def test_no_request_fails_while_models_are_swapped(service: ServiceProcess, releases: ReleaseMaker) -> None:
    releases.make(1)
    releases.make(2)
    service.put("bracelet", 1)
    stop, seen, failures = threading.Event(), set(), []
    expected: dict[str, Any] = {}
    for version in (1, 2):
        service.put("bracelet", version)
        expected[str(version)] = service.predict(ROWS).json()["probabilities"]

    def ask() -> int:
        count = 0
        with httpx.Client(base_url=service.url, timeout=30) as client:
            while not stop.is_set():
                answer = client.post("/invocations", json={"dataframe_records": ROWS})
                document, count = answer.json(), count + 1
                version = document.get("model", {}).get("version")
                seen.add(version)
                if answer.status_code != 200 or document["probabilities"] != expected[version]:
                    failures.append(answer.text)
        return count

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(ask) for _ in range(4)]
        try:
            for number in range(20):
                answer = service.put("bracelet", 1 + number % 2)
                assert answer.status_code == 200
                if number % 5 == 0:
                    assert service.client.post("/admin/models/bracelet/rollback").status_code == 200
        finally:
            stop.set()
        assert sum(caller.result() for caller in callers) > 20
    assert failures == []
    assert seen == {"1", "2"}


def test_concurrent_administration_of_one_model_is_serialised(service: ServiceProcess, releases: ReleaseMaker) -> None:
    for version in (1, 2, 3):
        releases.make(version)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda version: service.put("bracelet", version), [1, 2, 3, 1, 2, 3]))
    assert [answer.status_code for answer in answers] == [200] * 6
    served = service.client.get("/admin/models").json()["models"][0]
    state = json.loads((service.home / "state.json").read_text())
    assert state["models"]["bracelet"]["current"]["version"] == served["version"] == version_of(service)


def test_a_restart_serves_the_same_without_the_registry(tmp_path: Path, releases: ReleaseMaker) -> None:
    home, uri = tmp_path / "home", f"file://{tmp_path / 'releases'}"
    releases.make(1)
    releases.make(2)
    with support.running(home, uri, "--model", "bracelet") as service:
        assert service.put("bracelet", 1).status_code == 200
        assert service.put("bracelet", 2).status_code == 200
        before = service.predict(ROWS).json()["probabilities"]
        service.stop(signal.SIGKILL)
    # nothing listens there: MLflow is down
    with support.running(home, "http://127.0.0.1:9") as service:
        assert service.client.get("/ping").status_code == 200
        assert service.predict(ROWS).json()["probabilities"] == before
        assert service.client.get("/health").json()["status"] == "ok"
        back = service.client.post("/admin/models/bracelet/rollback")
        assert back.json()["model"]["version"] == "1"
        assert version_of(service) == "1"


def test_a_damaged_copy_is_not_served_after_a_restart(tmp_path: Path, releases: ReleaseMaker) -> None:
    home, uri = tmp_path / "home", f"file://{tmp_path / 'releases'}"
    releases.make(1)
    releases.make(7, name="other")
    with support.running(home, uri) as service:
        assert service.put("bracelet", 1).status_code == 200
        assert service.put("other", 7).status_code == 200
        assert service.stop() == 0
    _flip(home / "models/bracelet/1")
    with support.running(home, uri) as service:
        health = service.client.get("/health").json()
        assert health["status"] == "degraded"
        assert "does not match its sha256" in health["problems"]["bracelet"]
        assert service.predict(ROWS, "other").status_code == 200
        assert service.predict(ROWS, "bracelet").status_code == 404
        # deploying it again fetches a whole copy
        assert service.put("bracelet", 1).status_code == 200
        assert service.client.get("/health").json()["status"] == "ok"


def test_a_version_that_was_published_anew_is_fetched_anew(service: ServiceProcess, releases: ReleaseMaker) -> None:
    folder = releases.make(1)
    assert service.put("bracelet", 1).json()["changed"]
    folder.rename(folder.with_name("old"))
    releases.make(1, {"onnx": support.classifier(5.0)})
    assert service.put("bracelet", 1).json()["changed"]
    assert service.predict(ROWS).json()["probabilities"][0][1] > 0.99
