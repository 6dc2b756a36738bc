"""``edgewright plan --against`` a server that speaks Airflow's REST API as 3.3 does (a real one: tests/stack)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from edgewright.artifacts import ArtifactStore
from edgewright.cli.main import cli
from edgewright.factory.archive import put_version
from edgewright.factory.stub import render_stub

DOCUMENT = """\
dag_id: {name}
tasks:
  - {{id: data, uses: ingest, with: {{source: data.csv, label: y, split: {{test: 0.5, seed: 1}}}}}}
  - {{id: model, uses: train, with: {{data: {{$x: data}}, entry: "model.py:fit"}}}}
"""


class Airflow(ThreadingHTTPServer):
    """Has the Dags of a bundle version.

    Attributes:
        dags: What ``/dags`` answers, by id.
        sources: Source by Dag id.
        pages: ``doc_md`` by Dag id.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dags: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, str] = {}
        self.pages: dict[str, str] = {}

    def add(self, dag_id: str, source: str, **more: Any) -> None:
        about = {"bundle_name": "pipelines", "bundle_version": "v1", "relative_fileloc": f"{dag_id}/pipeline.yaml.py"}
        state = {"is_paused": False, "has_import_errors": False}
        self.dags[dag_id] = {"dag_id": dag_id, **about, **state, **more}
        self.sources[dag_id] = source


class _Handler(BaseHTTPRequestHandler):
    server: Airflow

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, {"access_token": "token"})

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        query = parse_qs(place.query)
        parts = place.path.removeprefix("/api/v2/").split("/")
        if parts == ["dags"]:
            assert query["tags"] == ["edgewright"]
            rows = list(self.server.dags.values())
            self._answer(200, {"dags": rows[int(query["offset"][0]) :], "total_entries": len(rows)})
        elif parts[0] == "dagSources" and parts[1] in self.server.sources:
            assert self.headers["Accept"] == "application/json"
            self._answer(200, {"content": self.server.sources[parts[1]]})
        elif parts[0] == "dags" and parts[-1] == "details":
            self._answer(200, {"doc_md": self.server.pages.get(parts[1])})
        else:
            self._answer(404, {"detail": "not found"})

    def _answer(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    """An Airflow with the pipelines ``a`` and ``b``, and the folder that they were made from in ``tmp_path/dags``."""
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    for name in ("EDGEWRIGHT_STORE", "EDGEWRIGHT_AIRFLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    server = Airflow()
    for name in ("a", "b"):
        folder = tmp_path / "dags" / name
        folder.mkdir(parents=True)
        (folder / "pipeline.yaml").write_text(DOCUMENT.format(name=name))
        (folder / "model.py").write_text("def fit(data): ...\n")
        (folder / "data.csv").write_text("x,y\n1,0\n")
        server.add(name, render_stub(f"{name}/pipeline.yaml", DOCUMENT.format(name=name), "0" * 64))
    put_version(ArtifactStore(f"file://{tmp_path / 'home' / 'store'}"), "pipelines", "v1", tmp_path / "dags")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("EDGEWRIGHT_AIRFLOW_URL", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plan", "--against", "airflow", *arguments])


def plans(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    done = call(str(folder), "--json", *arguments)
    assert done.exit_code == 0, done.output
    return {plan["dag_id"]: plan for plan in json.loads(done.stdout)}


def test_nothing_changed(airflow: Airflow, tmp_path: Path) -> None:
    assert call(str(tmp_path / "dags"), "--exit-code").output == "= a: same\n= b: same\n"


def test_a_changed_document_and_changed_code(airflow: Airflow, tmp_path: Path) -> None:
    place = tmp_path / "dags" / "a" / "pipeline.yaml"
    place.write_text(place.read_text().replace("seed: 1", "seed: 2"))
    (tmp_path / "dags" / "b" / "model.py").write_text("def fit(data): return None\n")
    found = plans(tmp_path / "dags")
    assert found["a"]["changed"]["data"] == [{"place": "with.split.seed", "old": 1, "new": 2}]
    assert list(found["a"]["misses"]) == ["data", "model"]
    assert found["b"]["changed"] == {}
    assert found["b"]["misses"] == {"model": [{"part": "code", "text": "model.py changed"}]}


def test_added_and_removed(airflow: Airflow, tmp_path: Path) -> None:
    (tmp_path / "dags" / "a" / "pipeline.yaml").unlink()
    (tmp_path / "dags" / "c.yaml").write_text("dag_id: c\ntasks: [{id: one}]\n")
    found = plans(tmp_path / "dags")
    assert {name: plan["state"] for name, plan in found.items()} == {"a": "removed", "b": "same", "c": "added"}
    # only what was asked for is compared
    assert list(plans(tmp_path / "dags" / "b")) == ["b"]


def test_dags_of_other_bundles_and_folders_are_not_ours_to_remove(airflow: Airflow, tmp_path: Path) -> None:
    airflow.add("x", render_stub("x/pipeline.yaml", DOCUMENT.format(name="x"), "0"), bundle_name="others")
    airflow.add("a__events", airflow.sources["a"])
    assert set(plans(tmp_path / "dags")) == {"a", "b"}


def test_without_the_version_in_the_store_it_says_so(airflow: Airflow, tmp_path: Path) -> None:
    airflow.dags["a"].update(bundle_version="v2", is_paused=True, has_import_errors=True)
    (tmp_path / "dags" / "a" / "model.py").write_text("def fit(data): return None\n")
    plan = plans(tmp_path / "dags")["a"]
    assert plan["state"] == "same"
    assert [note.split(":")[0].split(" for")[0] for note in plan["notes"]] == [
        "it is paused in Airflow", "Airflow has an import error", "the files beside the document are not compared",
    ]  # fmt: skip


def test_a_dag_of_the_loader_is_read_from_its_page(airflow: Airflow, tmp_path: Path) -> None:
    airflow.sources["a"] = "from edgewright.factory import load_dags\nload_dags(globals(), __file__)\n"
    airflow.pages["a"] = "About it.\n\n```yaml\n" + DOCUMENT.format(name="a").replace("seed: 1", "seed: 3") + "```"
    plan = plans(tmp_path / "dags")["a"]
    assert plan["changed"]["data"] == [{"place": "with.split.seed", "old": 3, "new": 1}]


def test_an_airflow_that_is_away_is_a_service_that_does_not_answer(tmp_path: Path, airflow: Airflow) -> None:
    done = CliRunner().invoke(cli, ["plan", str(tmp_path / "dags"), "--against", "http://127.0.0.1:1"])
    assert done.exit_code == 69
    assert "Airflow does not answer" in done.output
