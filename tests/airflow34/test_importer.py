"""Airflow 3.4 reads our files by itself, and makes of them what Airflow 3.3 makes of our bundle's stubs."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.airflow]
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOOD = ROOT / "tests" / "corpus" / "good"
OURS = "edgewright.factory.importer.PipelineImporter"
THEIRS = "airflow.sdk.importers.yaml_importer.YamlDagImporter"
BROKEN = """\
dag_id: broken
schedul: "@daily"
tasks:
  - {id: a, uses: trian}
  - {id: b, nees: [a]}
"""


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A bundle with one plain Airflow YAML Dag and the file that it reads."""
    for name in ("plain.yaml", "query.sh"):
        shutil.copy(HERE / name, tmp_path / name)
    return tmp_path


def test_pipelines_are_the_same_dags_as_on_33(airflow34: Any, airflow33: Any) -> None:
    files = sorted(GOOD.glob("*.yaml"))
    new = airflow34.describe("bag", GOOD, GOOD)
    assert new["airflow"] == "3.4.0b2"
    assert new["errors"] == {}
    assert new["heavy"] == []
    old = airflow33.describe("stubs", GOOD, *files)
    assert len(old["dags"]) >= len(files) >= 40  # a file may hold several, and triggers have a Dag of their own
    for dag in new["dags"].values():  # what only 3.4 knows
        dag["dag"]["timetable"].get("__var", {}).pop("batch_asset_events", None)
        for task in dag["tasks"].values():
            task.pop("is_stub", None)
    assert new["dags"] == old["dags"]


def test_the_bracelet_with_its_code_and_its_place(airflow34: Any, airflow33: Any) -> None:
    dags, file = ROOT / "dags", ROOT / "dags" / "bracelet" / "pipeline.yaml"
    # the file alone, as a worker reads it
    new = airflow34.describe("bag", dags, file)
    assert new["errors"] == {}
    assert new["files"]["bracelet"] == [str(file), "bracelet/pipeline.yaml", "tests"]
    assert new["sources"]["bracelet"] == ["yaml", file.read_text()]
    assert new["dags"] == airflow33.describe("stubs", dags, file)["dags"]
    model = new["dags"]["bracelet"]["tasks"]["model"]
    assert model["upstream"] == ["checks"]
    assert model["config"]["args"] == {"alpha": {"$t": "{{ params.alpha }}"}}


def test_every_fault_has_its_line_column_and_suggestion(
    airflow34: Any, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    write("broken.yaml", BROKEN)
    write("good.yaml", "dag_id: good\ntasks: [{id: only}]\n")
    write("unknown_operator.yaml", "dag_id: u\ntasks:\n  - {id: a, uses: airflow.no.such.Operator}\n")
    write("values.yaml", "replicas: 3\n")
    write("defaults.yaml", "tags: [all]\n")
    write(".hidden/pipeline.yaml", BROKEN)
    write("left_out/pipeline.yaml", BROKEN)
    write(".airflowignore", "left_out\n")
    (tmp_path / "bundle" / "latin.yaml").write_bytes(b"dag_id: caf\xe9\n")
    faults = airflow34.describe("faults", tmp_path / "bundle")["faults"]
    assert set(faults) == {"broken.yaml", "unknown_operator.yaml", "latin.yaml"}
    assert [[line, column, code, hint] for line, column, code, _, hint in faults["broken.yaml"]] == [
        [2, 1, "unknown-key", 'did you mean "schedule"?'],
        [4, 19, "unknown-step", 'did you mean "train"?'],
        [5, 13, "unknown-key", 'did you mean "needs"?'],
    ]
    assert "no such step: 'trian'" in faults["broken.yaml"][1][3]
    assert "latin.yaml: cannot be read: it is not UTF-8 text" in faults["latin.yaml"][0][3]


def test_airflows_own_yaml_is_the_same_dag_by_either_importer(airflow34: Any, airflow33: Any, plain: Path) -> None:
    ours = airflow34.describe("bag", plain, plain)
    assert ours["errors"] == {}
    assert ours["dags"] == airflow33.describe("stubs", plain, plain / "plain.yaml")["dags"]
    theirs = airflow34.describe("bag", plain, plain, importer=THEIRS)
    mine, other = ours["dags"]["plain"], theirs["dags"]["plain"]
    # what ours adds: a tag, the text as the Dag's page, and types of params by their defaults
    for task in (*mine["tasks"].values(), *other["tasks"].values()):
        assert [name for name, _ in task.pop("params")] == ["day", "count"]
    assert mine["dag"].pop("tags") == ["edgewright", *other["dag"].pop("tags")]
    assert "```yaml\n" in mine["dag"].pop("doc_md")
    assert [param.pop("schema")["__var"] for _, param in mine["dag"]["params"]] == [
        {"type": "string"},
        {"type": "integer"},
    ]
    for _, param in other["dag"]["params"]:
        assert param.pop("schema")["__var"] == {}
    assert mine == other


def test_handlers_in_other_languages_get_their_arguments(airflow34: Any, tmp_path: Path) -> None:
    for name in ("handlers.yaml", "query.sh"):
        shutil.copy(HERE / name, tmp_path / name)
    found = [airflow34.describe("bag", tmp_path, tmp_path, importer=importer) for importer in (OURS, THEIRS)]
    assert [answer["errors"] for answer in found] == [{}, {}]
    mine, other = (answer["dags"]["handlers"] for answer in found)
    assert mine["dag"].pop("tags") == ["edgewright"]
    assert "```yaml\n" in mine["dag"].pop("doc_md")
    assert mine == other
    bound = {entry.pop("name"): entry for entry in mine["tasks"]["transform"]["_arg_bindings"]}
    assert bound["rows"] == {"kind": "xcom", "task_id": "extract"}
    assert bound["limit"] == {"kind": "literal", "value": 20}


def test_a_plain_dag_runs_and_renders_only_what_is_marked(airflow34: Any, plain: Path) -> None:
    settings = _bundle(plain)
    airflow34.airflow("db", "migrate", **settings)
    airflow34.airflow("dags", "reserialize", **settings)
    shown = airflow34.airflow("dags", "test", "plain", "2026-02-03", **settings)
    assert "state=success" in shown
    for text in ("monday 2026-02-03", "got monday 2026-02-03, {{ ds }}", "{{ this }}"):
        assert text in shown


def test_the_dag_processor_stores_dags_and_import_errors(
    airflow34: Any, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    write("broken.yaml", BROKEN)
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "dags" / "bracelet", bundle / "bracelet")
    # the importer of this bundle only
    settings = _bundle(bundle, importers=[{"classpath": OURS}])
    settings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{tmp_path / 'airflow.db'}"
    airflow34.airflow("db", "migrate", importer=None, **settings)
    airflow34.airflow("dag-processor", "--num-runs", "1", importer=None, **settings)
    with sqlite3.connect(tmp_path / "airflow.db") as database:
        dags = database.execute("SELECT dag_id, bundle_name, relative_fileloc, timetable_summary FROM dag").fetchall()
        code = database.execute("SELECT source_code FROM dag_code").fetchall()
        errors = database.execute("SELECT filename, stacktrace FROM import_error").fetchall()
    assert dags == [("bracelet", "ours", "bracelet/pipeline.yaml", "0 3 * * 0")]
    assert code == [((bundle / "bracelet" / "pipeline.yaml").read_text(),)]
    assert [name for name, _ in errors] == ["broken.yaml"]
    assert [line.split(": ")[0] for line in errors[0][1].splitlines()] == [
        "broken.yaml:2:1", "broken.yaml:4:19", "broken.yaml:5:13",
    ]  # fmt: skip


def test_a_pipeline_in_an_archive_is_refused_by_name(airflow34: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("p.yaml", "dag_id: zipped\ntasks: [{id: only}]\n")
    importer = {
        "classpath": "airflow.sdk.importers.zip_importer.ZipImporter",
        "kwargs": {"internal_importers": [{"classpath": OURS}]},
    }
    settings = {"AIRFLOW__DAG_PROCESSOR__DAG_IMPORTER_CONFIGS": json.dumps([importer])}
    found = airflow34.describe("bag", tmp_path, tmp_path, importer=None, **settings)
    assert found["dags"] == {}
    assert "a pipeline cannot stand in an archive" in found["errors"]["archive.zip/p.yaml"]


def _bundle(folder: Path, **more: Any) -> dict[str, str]:
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundle = {"name": "ours", "classpath": classpath, "kwargs": {"path": str(folder)}, **more}
    return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle])}
