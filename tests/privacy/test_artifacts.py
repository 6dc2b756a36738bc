"""Erasing from datasets: new versions, old ones marked, and nobody comes back with the next run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support.people import INGEST, KEY, TOKENS, RunStep

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.digest import describe_tree
from edgewright.cli.main import cli
from edgewright.errors import ConfigError, NotFound, StoreError
from edgewright.privacy.erase import erase
from edgewright.steps.contract import StepResult
from edgewright.steps.data import Dataset

AGATHA, BERTRAM = TOKENS["Agatha"], TOKENS["Bertram"]
Made = dict[str, StepResult]


def everybody(store: ArtifactStore) -> set[str]:
    """Return every pseudonym in any Parquet file of a store."""
    found: set[str] = set()
    for file in Path(store.root.removeprefix("file://")).rglob("*.parquet"):
        table = pq.read_table(file)
        if "person" in table.column_names:
            found |= set(table["person"].to_pylist())
    return found


def test_a_person_goes_from_every_version_and_does_not_come_back(
    made: Made, run_step: RunStep, store: ArtifactStore
) -> None:
    old = made["ingest"].outputs["dataset"]
    report = erase(store, AGATHA)
    assert AGATHA not in everybody(store)
    assert BERTRAM in everybody(store)
    versions = [finding for finding in report.erased if finding.what == "dataset"]
    assert {finding.where for finding in versions} >= {old.sha256, made["validate"].outputs["dataset"].sha256}
    assert {finding.count for finding in versions} == {40}
    with pytest.raises(StoreError, match="not in the store") as raised:
        store.fetch(old)
    assert "a person who was erased on 20" in str(raised.value.hint)
    again = run_step("ingest", INGEST, run="r2")
    assert not again.cache.hit, "the result of before would bring them back"
    assert AGATHA not in everybody(store)
    data = Dataset.open(store.fetch(again.outputs["dataset"]))
    assert data.manifest["rows"] == 120
    assert run_step("ingest", INGEST, run="r3").cache.hit
    # nobody stores it again who was at work on it meanwhile, and what was done is reported again
    second = erase(store, AGATHA)
    assert [(f.where, f.count) for f in second.erased] == [(f.where, f.count) for f in report.erased]
    assert second.requested == report.requested


def test_who_was_at_work_meanwhile_cannot_store_it(made: Made, store: ArtifactStore, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(store.fetch(made["ingest"].outputs["dataset"]), tmp_path / "at-work")
    erase(store, AGATHA)
    with pytest.raises(StoreError, match="holds a person who was erased meanwhile"):
        store.put(tmp_path / "at-work", "dataset")


def test_two_persons_after_each_other(made: Made, store: ArtifactStore) -> None:
    erase(store, AGATHA)
    erase(store, BERTRAM)
    assert everybody(store) == {TOKENS["Cecilia"], TOKENS["Dorothea"]}


def test_models_that_learnt_from_it_are_listed(made: Made, run_step: RunStep, store: ArtifactStore) -> None:
    data = made["validate"].outputs["dataset"].model_dump(mode="json")
    model = run_step("train", {"data": data, "entry": "model.py:fit"}).outputs["model"]
    report = erase(store, AGATHA)
    assert not report.complete
    (finding,) = [one for one in report.kept if model.sha256 in one.where]
    assert "cannot be taken out" in finding.how
    assert finding.details == {"dag_id": "people", "run_id": "r1", "task": "train"}
    assert any(one.where.startswith(f"model {model.sha256}") for one in erase(store, AGATHA).kept), "and again"


def test_a_dry_run_changes_nothing(made: Made, store: ArtifactStore, tmp_path: Path) -> None:
    before = describe_tree(tmp_path)
    report = erase(store, AGATHA, dry_run=True)
    assert describe_tree(tmp_path) == before
    assert {finding.count for finding in report.erased} == {40}
    assert not report.complete


def test_somebody_unknown_is_remembered_all_the_same(made: Made, run_step: RunStep, store: ArtifactStore) -> None:
    stranger = "p_" + "a" * 26
    report = erase(store, stranger)
    assert report.erased == []
    assert report.complete
    again = run_step("ingest", INGEST, run="r2")
    assert again.outputs == made["ingest"].outputs, "the same rows are the same version"
    with pytest.raises(ConfigError, match="no pseudonym") as raised:
        erase(store, "Agatha")
    assert "Agatha" not in str(raised.value), "an error goes into logs"


def test_a_dataset_of_nobody_else_has_no_new_version(run_step: RunStep, store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "pipeline" / "people.csv").write_text("person,age,y\n" + "Agatha,61,1\nAgatha,62,0\n" * 5)
    config = {"source": "people.csv", "label": "y", "personal": {"person": "token"}}
    data = run_step("ingest", config).outputs["dataset"]
    (finding,) = erase(store, AGATHA).erased
    assert (finding.where, finding.details) == (data.sha256, {"replaced_by": None})
    with pytest.raises(Exception, match="every row is of a person who was erased"):
        run_step("ingest", config, run="r2")


def test_rows_that_a_database_gave_earlier(made: Made, store: ArtifactStore, tmp_path: Path) -> None:
    table = pa.table({"person": [AGATHA, BERTRAM, None], "age": [1, 2, 3]})
    pq.write_table(table, tmp_path / "rows.parquet")
    place = "increments/people/data/0011223344556677/000000-abc-0.parquet"
    store.put_file(place, tmp_path / "rows.parquet")
    assert place in [finding.where for finding in erase(store, AGATHA).erased]
    with store.open(place) as file:
        assert pq.read_table(file).to_pydict() == {"person": [BERTRAM, None], "age": [2, 3]}
    assert [(one.where, one.count) for one in erase(store, AGATHA).erased if one.what == "increment"] == [(place, 1)]


KILLED = """
import os, signal, sys
from edgewright.artifacts import ArtifactStore
from edgewright.privacy.erase import erase

left = [int(sys.argv[2])]


def dying(method):
    def call(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments, **options)

    return call


for name in ("delete", "write_json", "create_json", "put"):
    setattr(ArtifactStore, name, dying(getattr(ArtifactStore, name)))
erase(ArtifactStore(sys.argv[1]), sys.argv[3])
"""


def test_killed_at_any_change_it_is_finished_by_the_next(made: Made, store: ArtifactStore) -> None:
    kills = 0
    for steps in (1, 2, 3, 5, 7, 9, 100):
        command = [sys.executable, "-c", KILLED, store.root, str(steps), AGATHA]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        kills += 1
    assert kills >= 3
    assert AGATHA not in everybody(store)
    report = store.read_json(f"erasures/reports/{AGATHA}.json")
    assert report is not None
    assert {finding["where"] for finding in report["erased"]} >= {
        one.outputs["dataset"].sha256 for one in made.values()
    }
    assert {finding["count"] for finding in report["erased"]} == {40}


def call(tmp_path: Path, *arguments: str) -> Any:
    env = {"EDGEWRIGHT_HOME": str(tmp_path / "home"), "EDGEWRIGHT_PSEUDONYM_KEY": KEY}
    return CliRunner().invoke(cli, list(arguments), env=env)


def test_the_command_and_the_versions_that_people_see(made: Made, tmp_path: Path, key: None) -> None:
    done = call(tmp_path, "privacy", "erase", "--subject", AGATHA, "--output", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert "40 rows; new version" in done.output
    page = (tmp_path / "out" / "erasure.html").read_text()
    assert AGATHA in page
    assert "Agatha" not in page
    assert json.loads((tmp_path / "out" / "erasure.json").read_text())["subject"] == AGATHA
    old = made["ingest"].outputs["dataset"].sha256
    shown = json.loads(call(tmp_path, "data", "show", "people/ingest", "--json").output)
    assert shown["manifest"]["rows"] == 120
    assert [bool(one["erased"]) for one in shown["versions"]] == [True, False]
    refused = call(tmp_path, "data", "show", f"people/ingest@{old}")
    assert isinstance(refused.exception, NotFound | SystemExit)
    as_json = json.loads(call(tmp_path, "privacy", "erase", "--subject", AGATHA, "--dry-run", "--json").stdout)
    assert as_json["dry_run"] is True
    assert as_json["erased"] == []
    assert call(tmp_path, "privacy", "erase", "--subject", "Agatha").exit_code == 1
