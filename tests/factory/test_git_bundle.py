"""Airflow's own git bundle with our loader in the repository, on a real repository."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

LOADER = """\
# the words airflow and dag tell Airflow to look into this file
from edgewright.factory import load_dags

load_dags(globals(), __file__)
"""
DOCUMENT = "dag_id: {name}\ndescription: {about}\ntasks:\n  - {{id: t}}\n"


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, home: Path) -> Path:
    """A repository with two pipelines below ``dags``."""
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    (place / "dags").mkdir()
    (place / "dags" / "pipelines.py").write_text(LOADER)
    commit(place, "first")
    return place


def commit(place: Path, about: str) -> str:
    for name in ("a", "b"):
        (place / "dags" / name).mkdir(exist_ok=True)
        (place / "dags" / name / "pipeline.yaml").write_text(DOCUMENT.format(name=name, about=about))
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", about)
    return git(place, "rev-parse", "HEAD")


def bundle(repository: Path, name: str, version: str | None = None) -> Any:
    from airflow.providers.git.bundles.git import GitDagBundle

    found = GitDagBundle(name=name, repo_url=str(repository), tracking_ref="main", subdir="dags", version=version)
    found.initialize()
    return found


def dags(found: Any) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(found.path, bundle_path=found.path, bundle_name=found.name)
    assert bag.import_errors == {}
    return dict(bag.dags)


def test_pipelines_come_from_a_commit_and_a_run_keeps_its_own(repository: Path) -> None:
    name = f"git-{uuid.uuid4().hex[:8]}"
    first = git(repository, "rev-parse", "HEAD")
    newest = bundle(repository, name)
    assert {dag.dag_id: dag.description for dag in dags(newest).values()} == {"a": "first", "b": "first"}
    commit(repository, "second")
    newest.refresh()
    assert {dag.description for dag in dags(newest).values()} == {"second"}
    # what a worker of a run does that began before
    assert {dag.description for dag in dags(bundle(repository, name, first)).values()} == {"first"}


def test_a_broken_pipeline_of_a_commit_hides_no_other(repository: Path) -> None:
    (repository / "dags" / "a" / "pipeline.yaml").write_text("dag_id: a\ntasks: [{id: t, uses: trian}]\n")
    git(repository, "commit", "-q", "-a", "-m", "broken")
    found = dags(bundle(repository, f"git-{uuid.uuid4().hex[:8]}"))
    assert set(found) == {"b", "edgewright_broken_pipelines"}
    assert 'did you mean "train"?' in found["edgewright_broken_pipelines"].doc_md
