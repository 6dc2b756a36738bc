"""The git commit of a pipeline's folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgewright.cli.source import source_of
from edgewright.spec.pipeline import Pipeline


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def git_state(folder: str) -> tuple[str | None, bool | None]:
    source = source_of(Pipeline("p", Path(folder) / "pipeline.yaml", "", "0" * 64))
    assert source.folder == folder
    return source.commit, source.dirty


def test_commit_and_dirty_concern_the_folder_alone(tmp_path: Path):
    pipeline = tmp_path / "dags" / "one"
    pipeline.mkdir(parents=True)
    assert git_state(str(pipeline)) == (None, None)
    git(tmp_path, "init", "-q")
    assert git_state(str(pipeline)) == (None, None)
    (pipeline / "model.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(str(pipeline)) == (commit, False)
    (tmp_path / "elsewhere.txt").write_text("x")
    assert git_state(str(pipeline)) == (commit, False)
    (pipeline / "new.py").write_text("b = 2\n")
    assert git_state(str(pipeline)) == (commit, True)
    (pipeline / "new.py").unlink()
    (pipeline / "model.py").write_text("a = 2\n")
    assert git_state(str(pipeline)) == (commit, True)


def test_a_machine_without_git_is_no_fault(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(str(tmp_path)) == (None, None)
