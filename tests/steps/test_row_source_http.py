"""Rows of web services: pages, waits, faults, and a real server on loopback that behaves as it is told."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.steps.conftest import RunStep

from edgewright.errors import DataError, Unavailable
from edgewright.steps.data import Dataset

PAGES = 45
ROWS = PAGES * 4


def opened(result: Any) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


def rows_of(page: int) -> list[dict[str, Any]]:
    return [{"id": page * 4 + n, "who": {"name": f"p{n}", "age": 20 + n}} for n in range(4)]


class Service:
    """45 pages of four rows each, in every way that services have pages."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[Any] = []
        self.before: Callable[[str, Any], bool] = lambda path, handler: False
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(self.path)
                service.headers.append(self.headers)
                if not service.before(self.path, self):
                    service.answer(self)

            def log_message(self, *values: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def answer(self, handler: Any) -> None:
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        how = parts.path.strip("/")
        page = int(query.get("page", query.get("cursor", int(query.get("offset", 0)) // 4)))
        if how == "number":
            page -= 1
        rows = rows_of(page) if page < PAGES else []
        headers, body = {}, {"data": {"items": rows}, "paging": {"next": None, "cursor": ""}}
        if page + 1 < PAGES:
            following = f"{self.url}/{how}?page={page + 1}&token=geheim"
            headers = {"Link": f'<{following}>; rel="next", <{self.url}>; rel="first"'} if how == "link" else {}
            body["paging"] = {"next": f"/{how}?page={page + 1}", "cursor": str(page + 1)}
        send(handler, body, **headers)


def send(handler: Any, body: Any, status: int = 200, **headers: str) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(data))}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.shutdown()
    service.thread.join()
    service.server.server_close()


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("edgewright.steps.row_sources.time.sleep", waits.append)
    return waits


@pytest.mark.parametrize(
    "pages",
    [
        {"by": "link"},
        {"by": "next", "field": "paging.next"},
        {"by": "cursor", "field": "paging.cursor"},
        {"by": "number"},
        {"by": "offset", "size": 4, "size_param": "limit"},
    ],
)
def test_every_way_of_pages_gives_every_row_once(service: Service, run_step: RunStep, pages: dict[str, Any]):
    config = {"source": f"{service.url}/{pages['by']}", "http": {"records": "data.items", "pages": pages}}
    found = opened(run_step("ingest", config))
    assert {c["name"]: c["type"] for c in found.columns} == {
        "id": "integer",
        "who.name": "string",
        "who.age": "integer",
    }
    assert list(found.frame("train")["id"]) == list(range(ROWS))
    assert "geheim" not in str(found.manifest)


def test_a_busy_server_is_asked_again_when_it_says(service: Service, run_step: RunStep, slept: list[float]):
    answers = [(429, {"Retry_After": "7"}), (500, {}), (503, {"Retry_After": "9999"})]

    def before(path: str, handler: Any) -> bool:
        if "page=3&" in path and answers:
            status, headers = answers.pop(0)
            send(handler, {}, status, **headers)
            return True
        return False

    service.before = before
    config = {"source": f"{service.url}/link", "http": {"records": "data.items", "pages": {"by": "link"}}}
    assert run_step("ingest", config).metrics["rows"] == ROWS
    assert slept == [7.0, 2.0, 120.0]


def test_a_retry_begins_at_the_pages_that_lack(service: Service, run_step: RunStep):
    config = {"source": f"{service.url}/number", "http": {"records": "data.items", "pages": {"by": "number"}}}

    def before(path: str, handler: Any) -> bool:
        if "page=30" in path:
            send(handler, {}, 502)
            return True
        return False

    service.before = before
    with pytest.raises(Unavailable, match=r"page 30\): the server answered 502"):
        run_step("ingest", config)
    service.before = lambda path, handler: False
    service.asked.clear()
    assert run_step("ingest", config).metrics["rows"] == ROWS
    assert len(service.asked) == PAGES + 1 - 20  # the first 20 pages were kept; the last one is empty


def test_who_asks_comes_from_a_connection(service: Service, run_step: RunStep, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW_CONN_API", "http://:to%2Fken@127.0.0.1")
    how = {"records": "data.items", "headers": {"X-Version": "2"}}
    run_step("ingest", {"source": f"{service.url}/one", "connection": "api", "http": how})
    assert service.headers[-1]["Authorization"] == "Bearer to/ken"
    assert service.headers[-1]["X-Version"] == "2"
    monkeypatch.setenv("AIRFLOW_CONN_API", "http://anna:pw@127.0.0.1")
    run_step("ingest", {"source": f"{service.url}/one", "connection": "api", "http": how}, run="r2")
    assert service.headers[-1]["Authorization"] == "Basic " + base64.b64encode(b"anna:pw").decode()


@pytest.mark.parametrize(
    ("how", "body", "says"),
    [
        ({}, {"items": []}, "no list of objects\n  hint: it has: items; say records:"),
        ({"records": "items"}, {"items": [1]}, "items of the answer is no list of objects"),
        ({}, [{"a": [1, 2]}], "column a holds values of type list"),
        ({"pages": {"by": "next", "field": "n"}, "records": "r"}, {"r": [{"a": 1}], "n": "http://other.example/x"},
         "at another server"),
        ({"pages": {"by": "next", "field": "n"}, "records": "r"}, {"r": [{"a": 1}], "n": "/odd"}, "names itself"),
        ({"pages": {"by": "cursor", "field": "n"}, "records": "r"}, {"r": [{"a": 1}], "n": "x"}, "leads to itself"),
        ({"pages": {"by": "number", "at_most": 3}}, [{"a": 1}], "more than 3 pages"),
        ({}, [], "there is no row"),
    ],
)  # fmt: skip
def test_answers_that_do_not_fit(service: Service, run_step: RunStep, how: Any, body: Any, says: str):
    def before(path: str, handler: Any) -> bool:
        send(handler, body)
        return True

    service.before = before
    with pytest.raises(DataError, match=says):
        run_step("ingest", {"source": f"{service.url}/odd", "http": how})


def test_keys_that_some_rows_lack_and_types_that_widen(service: Service, run_step: RunStep):
    pages = {"1": [{"a": 1, "b": None}, {"a": 2}], "2": [{"a": 2.5, "c": "x"}], "3": []}

    def before(path: str, handler: Any) -> bool:
        send(handler, pages[path.rpartition("=")[2]])
        return True

    service.before = before
    found = opened(run_step("ingest", {"source": f"{service.url}/x", "http": {"pages": {"by": "number"}}}))
    assert {c["name"]: c["type"] for c in found.columns} == {"a": "number", "b": "string", "c": "string"}
    assert found.frame("train")["a"].tolist() == [1.0, 2.0, 2.5]
