"""The Dag bundle: versions, edits, broken files, pinned runs, machines that lack a version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support import airflow_env

from edgewright.errors import ConfigError, StoreError
from edgewright.factory.bundle import PipelineBundle
from edgewright.steps.code import code_digests

GOOD = "dag_id: {name}\ntasks:\n  - {{id: t}}\n"


@pytest.fixture
def src(tmp_path: Path, home: Path) -> Path:
    folder = tmp_path / "dags"
    write(folder, "a/pipeline.yaml", GOOD.format(name="a"))
    write(folder, "a/model.py", "ALPHA = 1\n")
    write(folder, "a/data.csv", "x\n1\n")
    write(folder, "b/pipeline.yaml", GOOD.format(name="b"))
    return folder


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture
def make(src: Path, tmp_path: Path, request: pytest.FixtureRequest):
    """Return a maker of bundles over that folder, all of one name."""
    name = f"bundle-{abs(hash(request.node.nodeid))}"

    def bundle(**options: Any) -> PipelineBundle:
        found = PipelineBundle(name=name, src=str(src), **options)
        if "version" not in options:
            found.initialize()
        return found

    return bundle


def bag(bundle: PipelineBundle) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)


def version(bundle: PipelineBundle) -> str:
    found = bundle.get_current_version()
    assert found is not None
    return found.version


def test_every_pipeline_is_a_dag_of_its_own_file(make):
    found = bag(make())
    assert {dag.dag_id: dag.relative_fileloc for dag in found.dags.values()} == {
        "a": "a/pipeline.yaml.py", "b": "b/pipeline.yaml.py",
    }  # fmt: skip
    assert found.import_errors == {}


def test_nothing_changes_without_an_edit(make, src: Path):
    bundle = make()
    stub = bundle.path / "a/pipeline.yaml.py"
    before, first = stub.stat().st_mtime_ns, version(bundle)
    os.utime(src / "a/model.py")
    bundle.refresh()
    assert version(bundle) == first
    assert stub.stat().st_mtime_ns == before


def test_an_edit_of_code_or_data_touches_the_stub_of_its_folder_only(make, src: Path):
    bundle = make()
    times = {name: (bundle.path / name).stat().st_mtime_ns for name in ("a/pipeline.yaml.py", "b/pipeline.yaml.py")}
    first = version(bundle)
    write(src, "a/data.csv", "x\n2\n")
    bundle.refresh()
    assert version(bundle) != first
    assert (bundle.path / "a/pipeline.yaml.py").stat().st_mtime_ns > times["a/pipeline.yaml.py"]
    assert (bundle.path / "b/pipeline.yaml.py").stat().st_mtime_ns == times["b/pipeline.yaml.py"]
    assert (bundle.path / "a/data.csv").read_text() == "x\n2\n"


def test_going_back_to_an_older_text_is_an_edit_like_any_other(make, src: Path):
    bundle = make()
    first, stub = version(bundle), bundle.path / "a/pipeline.yaml.py"
    write(src, "a/pipeline.yaml", GOOD.format(name="a") + "# more\n")
    bundle.refresh()
    between = stub.stat().st_mtime_ns
    write(src, "a/pipeline.yaml", GOOD.format(name="a"))
    bundle.refresh()
    assert version(bundle) == first
    assert stub.stat().st_mtime_ns > between


def test_an_edit_within_the_clocks_tick_is_seen(make, src: Path):
    bundle = make()
    first, state = version(bundle), (src / "a/data.csv").stat()
    (src / "a/data.csv").write_text("x\n7\n")
    os.utime(src / "a/data.csv", ns=(state.st_atime_ns, state.st_mtime_ns))
    bundle.refresh()
    assert version(bundle) != first


def test_new_and_removed_files_come_and_go(make, src: Path):
    bundle = make()
    write(src, "c/pipeline.yaml", GOOD.format(name="c"))
    shutil.rmtree(src / "b")
    bundle.refresh()
    assert set(bag(bundle).dags) == {"a", "c"}


def test_a_broken_file_is_its_own_import_error_and_hides_nobody(make, src: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACKS", "False")
    bundle = make()
    first = version(bundle)
    write(src, "a/pipeline.yaml", "dag_id: a\ntasks:\n  - {id: t, uses: trian}\n")
    bundle.refresh()
    found = bag(bundle)
    assert set(found.dags) == {"b"}
    assert set(found.import_errors) == {"a/pipeline.yaml.py"}
    text = found.import_errors["a/pipeline.yaml.py"]
    assert "a/pipeline.yaml:3:" in text
    assert 'did you mean "train"?' in text
    assert f"the last good version is {first} of 20" in text
    assert "Traceback" not in text
    write(src, "a/pipeline.yaml", GOOD.format(name="a"))
    bundle.refresh()
    assert set(bag(bundle).dags) == {"a", "b"}


@pytest.mark.parametrize("text", [b"dag_id: \xff\xfe\n", b"dag_id: a\ntasks: [", b"{", b"dag_id: a\n\x00"])
def test_files_that_are_no_documents_are_import_errors(make, src: Path, text: bytes):
    (src / "a/pipeline.yaml").write_bytes(b"# dag_id\n" + text)
    found = bag(make())
    assert set(found.dags) == {"b"}
    assert set(found.import_errors) == {"a/pipeline.yaml.py"}


def test_two_documents_with_one_id_are_told_apart(make, src: Path):
    write(src, "c/pipeline.yaml", GOOD.format(name="a"))
    found = bag(make())
    assert set(found.dags) == {"a", "b"}
    assert "duplicate dag_id 'a': a/pipeline.yaml has it already" in found.import_errors["c/pipeline.yaml.py"]


def test_ignored_files_defaults_and_python_dags(make, src: Path):
    write(src, ".airflowignore", "b/*\n")
    write(src, "a/defaults.yaml", "task_defaults: {owner: cardio}\n")
    write(src, "plain.py", "from airflow.sdk import DAG\ndag = DAG('plain', schedule=None)\n")
    write(src, ".hidden/pipeline.yaml", GOOD.format(name="hidden"))
    write(src, "a/values.yaml", "x: 1\n")
    bundle = make()
    assert set(bag(bundle).dags) == {"a", "plain"}
    assert bag(bundle).dags["a"].tasks[0].owner == "cardio"
    assert not (bundle.path / "a/values.yaml.py").exists()


def test_an_edit_of_what_is_inherited_reaches_every_heir_and_nobody_else(make, src: Path):
    write(src, "defaults.yaml", "root: true\n")
    write(src, "common/tags.yaml", "tags: [one]\n")
    write(src, "b/pipeline.yaml", GOOD.format(name="b").replace("dag_id: b", "dag_id: b\ninclude: ../common/tags.yaml"))
    bundle = make()
    before = {name: (bundle.path / f"{name}/pipeline.yaml.py").read_text() for name in "ab"}
    write(src, "common/tags.yaml", "tags: [two]\n")
    bundle.refresh()
    after = {name: (bundle.path / f"{name}/pipeline.yaml.py").read_text() for name in "ab"}
    assert before["a"] == after["a"]
    assert before["b"] != after["b"]
    assert bag(bundle).dags["b"].tags == {"edgewright", "two"}


def test_a_broken_default_is_an_import_error_that_an_edit_mends(make, src: Path):
    write(src, "defaults.yaml", "root: true\ntask_defaults: {retires: 3}\n")
    bundle = make()
    errors = bag(bundle).import_errors
    assert len(errors) == 2  # both inherit it
    assert all("defaults.yaml:2:17: task_defaults.retires" in error for error in errors.values())
    write(src, "defaults.yaml", "root: true\ntask_defaults: {retries: 3}\n")
    bundle.refresh()
    assert bag(bundle).dags["a"].tasks[0].retries == 3


def test_what_lies_outside_of_the_bundle_is_not_inherited(tmp_path: Path, home: Path):
    write(tmp_path, ".airflowignore", "")
    write(tmp_path, "defaults.yaml", "task_defaults: {retries: 3}\n")
    write(tmp_path, "pipelines/a/pipeline.yaml", GOOD.format(name="a"))
    bundle = PipelineBundle(name="outside", src=str(tmp_path / "pipelines"))
    bundle.initialize()
    (error,) = bag(bundle).import_errors.values()
    assert "which is not in the bundle's folder" in error


def test_the_environment_is_written_into_the_version(make, src: Path, monkeypatch: pytest.MonkeyPatch):
    write(src, "a/pipeline.yaml", GOOD.format(name="a") + "environments: {dev: {tags: [dev]}, prod: {tags: [prod]}}\n")
    monkeypatch.setenv("EDGEWRIGHT_ENVIRONMENT", "dev")
    bundle = make()
    first = version(bundle)
    monkeypatch.setenv("EDGEWRIGHT_ENVIRONMENT", "prod")
    assert bag(bundle).dags["a"].tags == {"edgewright", "dev"}  # a worker reads what the processor read
    bundle.refresh()
    assert version(bundle) != first
    assert bag(bundle).dags["a"].tags == {"edgewright", "prod"}


def test_a_pinned_version_stays_as_it_was(make, src: Path):
    bundle = make()
    first = version(bundle)
    (src / "a/model.py").write_text("ALPHA = 2\n")  # in place, as many editors write
    write(src, "a/pipeline.yaml", GOOD.format(name="a").replace("id: t", "id: u"))
    bundle.refresh()
    pinned = make(version=first)
    pinned.initialize()
    assert (pinned.path / "a/model.py").read_text() == "ALPHA = 1\n"
    assert [task.task_id for task in bag(pinned).dags["a"].tasks] == ["t"]
    assert [task.task_id for task in bag(bundle).dags["a"].tasks] == ["u"]
    assert pinned.get_current_version().version == first
    with pytest.raises(ConfigError, match="is pinned"):
        pinned.refresh()


def test_what_the_bundle_adds_is_in_no_cache_key(make, src: Path):
    write(src, "a/pipeline.yaml", GOOD.format(name="a") + "description: other\n")
    place = make().path / "a"
    assert code_digests(place, ["model.py:fit"]) == code_digests(src / "a", ["model.py:fit"])


def test_equal_contents_are_kept_once(make, src: Path):
    bundle = make()
    first = version(bundle)
    write(src, "b/new.txt", "x")
    bundle.refresh()
    one, other = (bundle.versions_dir / v / "a/data.csv" for v in (first, version(bundle)))
    assert one.stat().st_ino == other.stat().st_ino
    assert one.stat().st_ino != (src / "a/data.csv").stat().st_ino


def test_old_versions_that_only_edits_made_go_and_come_back(make, src: Path):
    from airflow.dag_processing.bundles.base import BundleVersionLock

    bundle = make()
    versions = [version(bundle)]
    with BundleVersionLock(bundle.name, versions[0]):  # what a worker does: Airflow itself keeps what was used
        pass
    for number in range(24):
        write(src, "a/data.csv", f"x\n{number}\n")
        bundle.refresh()
        versions.append(version(bundle))
    two_days_ago = time.time() - 2 * 86_400
    for name in versions[:-1]:
        os.utime(bundle.versions_dir / name, (two_days_ago, two_days_ago))
    write(src, "a/data.csv", "x\nlast\n")
    bundle.refresh()
    left = {place.name for place in bundle.versions_dir.iterdir()}
    assert versions[0] in left
    assert {versions[-1], version(bundle)} <= left
    assert 20 <= len(left) <= 22
    gone = next(name for name in versions if name not in left)
    again = make(version=gone)
    again.initialize()
    assert set(bag(again).dags) == {"a", "b"}


def test_a_machine_without_the_version_fetches_it(make, src: Path):
    bundle = make()
    first = version(bundle)
    shutil.rmtree(bundle.base_dir)
    worker = make(version=first)
    worker.initialize()
    assert set(bag(worker).dags) == {"a", "b"}
    assert (worker.path / "a/model.py").read_text() == "ALPHA = 1\n"
    assert not list(worker.path.rglob(".manifest.json"))


def test_a_version_that_is_nowhere_is_told(make):
    with pytest.raises(StoreError, match="version 0123456789abcdef of the Dag bundle .* is neither on this machine"):
        make(version="0123456789abcdef").initialize()


def test_a_store_that_is_away_stops_nothing_and_is_tried_again(make, src: Path, tmp_path: Path, caplog):
    (tmp_path / "file").write_text("")
    bundle = make(store=str(tmp_path / "file" / "store"))
    assert set(bag(bundle).dags) == {"a", "b"}
    assert "is not in the artifact store yet" in caplog.text
    (tmp_path / "file").unlink()
    bundle.refresh()
    assert list((tmp_path / "file" / "store" / "bundles").rglob("*.json"))


def test_a_folder_that_is_not_there_is_told(home: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no such folder"):
        PipelineBundle(name="nowhere", src=str(tmp_path / "no")).initialize()


def test_the_commit_of_the_source_goes_with_the_copies(make, src: Path):
    from edgewright.steps.revision import revision_of

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        call = ["git", *identity, "-C", str(src), *arguments]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    bundle = make()
    assert revision_of(bundle.path / "a") == (None, None)
    git("add", ".")
    git("commit", "-q", "-m", "first")
    bundle.refresh()  # no file changed, the commit did
    assert revision_of(bundle.path / "a") == (git("rev-parse", "HEAD"), False)
    (src / "a/model.py").write_text("ALPHA = 3\n")
    bundle.refresh()
    assert revision_of(bundle.path / "a") == (git("rev-parse", "HEAD"), True)


def test_a_look_at_an_unchanged_folder_is_cheap(make, src: Path):
    for number in range(100):
        write(src, f"many/{number}/pipeline.yaml", GOOD.format(name=f"dag{number}"))
        write(src, f"many/{number}/model.py", "x = 1\n")
    bundle = make(store="")
    time.sleep(1.1)  # until the files' times are trusted
    bundle.refresh()
    started = time.perf_counter()
    bundle.refresh()
    assert time.perf_counter() - started < 0.25


@pytest.mark.airflow
def test_a_run_begun_in_a_worker_parses_one_file_of_its_version(make, src: Path):
    """What a worker does: the bundle at the run's version, then the one file of the Dag."""
    bundle = make()
    airflow_env.database()
    worker = make(version=version(bundle))
    worker.initialize()
    from airflow.dag_processing.dagbag import DagBag

    found = DagBag(worker.path / "a/pipeline.yaml.py", bundle_path=worker.path, bundle_name=worker.name)
    assert set(found.dags) == {"a"}
    state = json.loads((bundle.base_dir / "edgewright-state.json").read_text())
    assert state["good"]["a/pipeline.yaml"]["version"] == version(bundle)


def test_every_document_of_a_file_is_a_dag(make, src: Path):
    write(src, "a/pipeline.yaml", GOOD.format(name="a") + "---\n" + GOOD.format(name="c"))
    bundle = make()
    found = bag(bundle)
    assert found.import_errors == {}
    assert {dag.dag_id: dag.relative_fileloc for dag in found.dags.values()} == {
        "a": "a/pipeline.yaml.py", "b": "b/pipeline.yaml.py", "c": "a/pipeline.yaml.py",
    }  # fmt: skip
    assert "dag_id: c" not in found.dags["a"].doc_md
    assert "dag_id: c" in found.dags["c"].doc_md
