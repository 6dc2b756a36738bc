"""What callers see: forms, answers, faults."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from support.prediction_service import ROWS, ServiceProcess

ORDER = ["age", "chol", "ca"]
CELLS = [[row[name] for name in ORDER] for row in ROWS]


def post(service: ServiceProcess, body: Any, path: str = "/invocations", **headers: str) -> tuple[int, dict[str, Any]]:
    answer = service.client.post(
        path, content=json.dumps(body), headers={"content-type": "application/json", **headers}
    )
    return answer.status_code, answer.json()


def fault(service: ServiceProcess, body: Any, path: str = "/invocations") -> tuple[int, dict[str, Any]]:
    status, document = post(service, body, path)
    return status, document["error"]


def test_every_form_gives_the_same_answer(answering: ServiceProcess) -> None:
    shuffled = ["ca", "age", "chol"]
    split = {"columns": shuffled, "index": [7, 8, 9], "data": [[row[name] for name in shuffled] for row in ROWS]}
    bodies = [
        {"dataframe_records": ROWS},
        {"dataframe_split": split},
        {"dataframe_split": {"data": CELLS}},
        {"instances": CELLS},
        {"instances": ROWS},
        {"inputs": CELLS},
        {"inputs": {name: [row[name] for row in ROWS] for name in shuffled}},
        {"inputs": {name: [[row[name]] for row in ROWS] for name in ORDER}},
    ]
    answers = [post(answering, body) for body in bodies]
    csv = "ca,age,chol\r\n" + "".join(
        f"{r['ca'] if r['ca'] is not None else ''},{r['age']},{r['chol']}\r\n" for r in ROWS
    )
    text = answering.client.post("/invocations", content=csv, headers={"content-type": "text/csv; charset=utf-8"})
    answers.append((text.status_code, text.json()))
    for status, document in answers:
        assert status == 200, document
        assert document["predictions"] == [1, 1, 1]
        assert document["probabilities"] == answers[0][1]["probabilities"]
        assert document["model"] == {"name": "bracelet", "version": "1", "variant": "onnx"}
    assert all(abs(sum(row) - 1) < 1e-6 for row in answers[0][1]["probabilities"])


def test_headers_and_request_id(answering: ServiceProcess) -> None:
    answer = answering.client.post("/invocations", json={"instances": CELLS}, headers={"x-request-id": "patient-7"})
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-request-id"] == answer.json()["id"] == "patient-7"
    odd = answering.client.post("/invocations", json={"instances": CELLS}, headers={"x-request-id": "a b<script>"})
    assert odd.headers["x-request-id"] == odd.json()["id"] != "a b<script>"


def test_a_wrong_value_names_row_column_and_value(answering: ServiceProcess) -> None:
    rows = [dict(ROWS[0]), {**ROWS[1], "chol": "high"}, {**ROWS[2], "age": True, "chol": None}]
    status, error = fault(answering, {"dataframe_records": rows})
    assert status == 400
    assert error["code"] == "invalid-value"
    assert error["message"] == "row 1: column chol: expected a number, got 'high' (and 2 more)"
    assert [d["message"] for d in error["details"]] == [
        "row 1: column chol: expected a number, got 'high'",
        "row 2: column age: expected a number, got true",
        "row 2: column chol: expected a number, got null",
    ]
    assert error["details"][0] == {
        "row": 1, "column": "chol", "expected": "a number", "got": "'high'", "message": error["details"][0]["message"],
    }  # fmt: skip


@pytest.mark.parametrize("value", ["45", "", [45], {"a": 1}, False])
def test_nothing_but_a_number_is_a_number(answering: ServiceProcess, value: Any) -> None:
    status, error = fault(answering, {"instances": [[45, 230, value]]})
    assert status == 400
    assert error["message"].startswith("row 0: column ca: expected a number or null, got ")


def test_numbers_too_large_for_32_bits_are_refused(answering: ServiceProcess) -> None:
    status, error = fault(answering, {"instances": [[45, 1e39, 1]]})
    assert (status, error["message"]) == (400, "row 0: column chol: expected a number, got a number that is too large")
    body = '{"instances": [[45, 1' + "0" * 400 + ", 1]]}"
    answer = answering.client.post("/invocations", content=body)
    assert answer.status_code == 400


def test_columns_are_named_with_suggestions(answering: ServiceProcess) -> None:
    body = {"dataframe_split": {"columns": ["age", "cholesterol", "ca", "sex"], "data": [[45, 230, 1, 1]]}}
    status, error = fault(answering, body)
    assert status == 400
    assert error["code"] == "wrong-columns"
    assert [d["message"] for d in error["details"]] == [
        'missing column: chol; is "cholesterol" meant?',
        'unexpected column: cholesterol; did you mean "chol"?',
        "unexpected column: sex",
    ]
    assert error["hint"] == "the model takes: age, chol, ca"
    status, error = fault(answering, {"dataframe_records": [ROWS[0], {"age": 1, "chol": 2}]})
    assert error["message"] == "row 1: missing column: ca"
    status, error = fault(answering, {"dataframe_split": {"columns": ["age", "age", "chol", "ca"], "data": []}})
    assert error["message"] == "column age is there more than once"
    status, error = fault(answering, {"dataframe_records": [{"agee": 1, "chol": 2, "ca": 1}]})
    assert error["details"][0]["suggestion"] == "agee"


def test_values_outside_of_training_are_answered_with_a_warning(answering: ServiceProcess) -> None:
    status, document = post(answering, {"instances": [[45, 230, 1], [120, 230, 9]]})
    assert status == 200
    assert [(w["row"], w["column"], w["value"]) for w in document["warnings"]] == [(1, "age", 120.0), (1, "ca", 9.0)]
    assert document["warnings"][0]["message"] == (
        "row 1: column age: 120 is outside of 29 to 77, the range in training"
    )
    assert "warnings" not in post(answering, {"instances": [[45, 230, 1]]})[1]


@pytest.mark.parametrize(
    ("body", "status", "code", "part"),
    [
        ("{not json", 400, "invalid-json", "not JSON"),
        ("[1, 2]", 400, "invalid-form", "expected a JSON object, got [1,2]"),
        ("{}", 400, "invalid-form", "expected one of dataframe_split"),
        ('{"dataframe_record": []}', 400, "invalid-form", 'did you mean "dataframe_records"?'),
        ('{"instances": [], "inputs": []}', 400, "invalid-form", "got instances and inputs"),
        ('{"instances": []}', 400, "empty", "no rows"),
        ('{"instances": 5}', 400, "invalid-shape", "expected a list of rows, got 5"),
        ('{"instances": [[1, 2]]}', 400, "invalid-shape", "row 0: expected 3 values, got 2"),
        ('{"instances": [[1, 2, 3], 4]}', 400, "invalid-shape", "row 1: expected 3 values, got 4"),
        ('{"dataframe_split": {"columns": ["age"]}}', 400, "invalid-form", "expected"),
        ('{"dataframe_split": {"column": [], "data": []}}', 400, "invalid-form", "unknown key: column"),
        ('{"dataframe_split": {"columns": ["ca","age","chol"], "data": [[1]]}}', 400, "invalid-shape", "got 1"),
        ('{"dataframe_records": [5]}', 400, "invalid-shape", "row 0"),
        ('{"inputs": {"age": [1], "chol": [1, 2], "ca": [1]}}', 400, "invalid-shape", "differ in length"),
        ('{"instances": [[1,2,3]], "params": {"x": 1}}', 400, "invalid-form", "no params"),
        ("\xff\xfe", 400, "invalid-json", "not JSON"),
        ("[" * 5000, 400, "invalid-json", "not JSON"),
    ],
)
def test_bad_bodies(answering: ServiceProcess, body: str, status: int, code: str, part: str) -> None:
    answer = answering.client.post("/invocations", content=body.encode("latin-1"))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert part in error["message"]
    assert set(error) == {"code", "message", "hint", "details"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("age,chol,ca\n45,high,1\n", "row 0: column chol: expected a number, got 'high'"),
        ("age,chol,ca\n45,nan,1\n", "row 0: column chol: expected a number, got 'nan'"),
        ("age,chol,ca\n45,,1\n", "row 0: column chol: expected a number, got null"),
        ("age,chol,ca\n45,1\n", "row 0: expected 3 values, got 2"),
        ("age,chol\n45,1\n", "missing column: ca"),
        ("age,chol,ca\n", "there are no rows"),
        ("", "there are no rows"),
    ],
)
def test_bad_csv(answering: ServiceProcess, text: str, part: str) -> None:
    answer = answering.client.post("/invocations", content=text, headers={"content-type": "text/csv"})
    assert answer.status_code == 400
    assert part in answer.json()["error"]["message"]


def test_limits_and_content_types(answering: ServiceProcess) -> None:
    many = answering.client.post("/invocations", json={"instances": [[45, 230, 1]] * 10_001})
    assert (many.status_code, many.json()["error"]["code"]) == (413, "too-many-rows")
    full = answering.client.post("/invocations", json={"instances": [[45, 230, 1]] * 10_000})
    assert len(full.json()["predictions"]) == 10_000

    def chunks() -> Any:
        for _ in range(11):
            yield b"x" * (1 << 20)

    for content in (b"x" * (11 << 20), chunks()):
        large = answering.client.post("/invocations", content=content)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too-large")
    xml = answering.client.post("/invocations", content=b"<a/>", headers={"content-type": "application/xml"})
    assert (xml.status_code, xml.json()["error"]["hint"]) == (415, "send application/json or text/csv")


def test_a_caller_that_goes_away_does_no_harm(answering: ServiceProcess) -> None:
    host, port = answering.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert answering.predict(ROWS).status_code == 200
    assert "Traceback" not in answering.log.read_text()
    deadline = time.monotonic() + 60  # a busy machine hears late of who went away
    while "edgewright_in_flight 0" not in answering.client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_unknown_models_paths_and_methods(answering: ServiceProcess) -> None:
    answer = answering.predict(ROWS, "bracelets")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == 'no model bracelets is served; did you mean "bracelet"?'
    assert answer.json()["error"]["hint"] == "served are: bracelet, city, price"
    assert answering.client.get("/nope").json()["error"]["code"] == "not-found"
    wrong = answering.client.get("/invocations")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["message"] == "/invocations does not take GET"


def test_a_regression_model(answering: ServiceProcess) -> None:
    answer = answering.predict([{"rooms": 3, "garden": True}, {"rooms": 2.5, "garden": 0}], "price")
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == [10.0, 6.0]
    assert "probabilities" not in answer.json()
    assert answer.json()["model"]["version"] == answer.headers["x-model-version"] == "4"
    wrong = answering.predict([{"rooms": 3, "garden": "yes"}], "price").json()["error"]["message"]
    assert wrong == "row 0: column garden: expected true, false, 0 or 1, got 'yes'"
    wrong = answering.predict([{"rooms": 3, "garden": 0.5}], "price").json()["error"]["message"]
    assert wrong == "row 0: column garden: expected true, false, 0 or 1, got 0.5"
    csv = answering.client.post(
        "/models/price/invocations", content="rooms,garden\n3,true\n", headers={"content-type": "text/csv"}
    )
    assert csv.json()["predictions"] == [10.0]


def test_a_model_with_text_features(answering: ServiceProcess) -> None:
    rows = [{"city": "Oslo", "amount": 3}, {"city": "Rome", "amount": 3}, {"city": None, "amount": 3}]
    answer = answering.predict(rows, "city").json()
    assert answer["predictions"] == ["north", "south", "unknown"]
    wrong = answering.predict([{"city": 5, "amount": "x"}], "city").json()["error"]
    assert [d["message"] for d in wrong["details"]] == [
        "row 0: column city: expected text or null, got 5",
        "row 0: column amount: expected a number, got 'x'",
    ]
    assert answering.predict([{"city": 5, "amount": 1}], "city").status_code == 400
