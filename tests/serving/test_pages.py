from __future__ import annotations

import re

import jsonschema
import pytest
from support.prediction_service import ROWS, ServiceProcess


def test_the_document_describes_what_is_served(answering: ServiceProcess) -> None:
    api = answering.client.get("/openapi.json").json()
    assert api["openapi"] == "3.1.0"
    assert {"/invocations", "/models/bracelet/invocations", "/models/price/invocations"} <= set(api["paths"])
    row = api["components"]["schemas"]["bracelet.Row"]
    assert row["required"] == ["age", "chol", "ca"]
    assert row["properties"]["ca"]["type"] == ["number", "null"]
    assert row["properties"]["age"]["description"] == "29 to 77 in training"
    jsonschema.Draft202012Validator.check_schema(row)


def test_examples_and_answers_fit_their_schemas(answering: ServiceProcess) -> None:
    api = answering.client.get("/openapi.json").json()
    for path, methods in api["paths"].items():
        if not path.endswith("invocations"):
            continue
        operation = methods["post"]
        content = operation["requestBody"]["content"]
        example = content["application/json"]["example"]
        schema = {**content["application/json"]["schema"], "components": api["components"]}
        jsonschema.Draft202012Validator(schema).validate(example)
        answer = answering.client.post(path, json=example)
        assert answer.status_code == 200, answer.text
        shape = operation["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**shape, "components": api["components"]}).validate(answer.json())
        text = answering.client.post(path, content=content["text/csv"]["example"], headers={"content-type": "text/csv"})
        assert text.json()["predictions"] == answer.json()["predictions"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_need_nothing_from_elsewhere(answering: ServiceProcess, path: str) -> None:
    page = answering.client.get(path)
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"(src|href)=.?https?://", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_health_version_and_ping(answering: ServiceProcess) -> None:
    health = answering.client.get("/health").json()
    assert health["status"] == "ok"
    assert [m["name"] for m in health["models"]] == ["bracelet", "city", "price"]
    first = health["models"][0]
    assert first["default"]
    assert first["self_test"]["rows"] == 3
    assert first["since"].endswith("+00:00")
    assert answering.client.get("/ping").status_code == 200
    assert set(answering.client.get("/version").json()) == {"edgewright", "onnxruntime"}


def test_metrics_count_requests(answering: ServiceProcess) -> None:
    def value(name: str) -> float:
        text = answering.client.get("/metrics").text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
        return float(found.group(1)) if found else 0.0

    good = 'edgewright_requests_total{model="bracelet",version="1",code="200"}'
    bad = 'edgewright_requests_total{model="bracelet",version="1",code="400"}'
    rows = 'edgewright_batch_size_sum{model="bracelet"}'
    before = [value(name) for name in (good, bad, rows)]
    answering.predict(ROWS)
    answering.predict([{}])
    assert [value(name) for name in (good, bad, rows)] == [before[0] + 1, before[1] + 1, before[2] + 3]
    assert value('edgewright_model_info{model="price",version="4",variant="onnx"}') == 1
    assert value("edgewright_in_flight") == 0
    count = value('edgewright_request_duration_seconds_count{model="bracelet"}')
    assert value('edgewright_request_duration_seconds_bucket{model="bracelet",le="+Inf"}') == count > 0
    answering.predict(ROWS, "no-such-model")
    assert "no-such-model" not in answering.client.get("/metrics").text
