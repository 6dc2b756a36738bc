"""plan, render, docs, new: what people use before they merge, on a real git repository."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgewright.cli.main import cli

EDGEWRIGHT = Path(sys.executable).parent / "edgewright"
BRACELET = Path(__file__).parents[2] / "dags" / "bracelet"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the pipeline `bracelet`."""
    folder = tmp_path / "project" / "dags" / "bracelet"
    folder.mkdir(parents=True)
    for file in BRACELET.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    root = tmp_path / "project"
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], cwd=root, check=True)
    return root


def call(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process: starting one for each would take most of the time."""
    environment = {"EDGEWRIGHT_HOME": str(project.parent / "home"), "NO_COLOR": "1"}
    with contextlib.chdir(project):
        done = CliRunner().invoke(cli, arguments, env=environment)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def start(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    environment = {**os.environ, "EDGEWRIGHT_HOME": str(project.parent / "home"), "NO_COLOR": "1"}
    return subprocess.run(
        [str(EDGEWRIGHT), *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def edit(project: Path, old: str, new: str, name: str = "pipeline.yaml") -> None:
    place = project / "dags" / "bracelet" / name
    text = place.read_text()
    assert old in text
    place.write_text(text.replace(old, new))


def test_nothing_changed(project: Path) -> None:
    assert call(project, "plan").stdout == "= bracelet: same\n"


def test_a_new_schedule_and_a_new_argument(project: Path) -> None:
    edit(project, '"0 3 * * 0"', '"0 4 * * *"')
    edit(project, "test: 0.25", "test: 0.3")
    (plan,) = json.loads(call(project, "plan", "--json").stdout)
    assert plan["state"] == "changed"
    assert plan["dag"] == [{"place": "schedule", "old": "0 3 * * 0", "new": "0 4 * * *"}]
    assert plan["changed"]["data"][0]["place"] == "with.split.test"
    assert list(plan["misses"]) == ["data", "checks", "model", "quality", "int8"]
    assert plan["misses"]["data"] == [{"part": "config", "text": "with.split.test: 0.25 -> 0.3"}]
    assert [len(times) for times in plan["next_runs"].values()] == [3, 3]
    assert all(moment.endswith("T04:00:00Z") for moment in plan["next_runs"]["after"])


def test_changed_code_reruns_what_uses_code(project: Path) -> None:
    edit(project, "epochs: int = 12", "epochs: int = 13", "model.py")
    out = call(project, "plan").stdout
    assert "3 steps will run again instead of being reused:" in out
    assert "model: code: model.py changed\n" in out
    assert "checks:" not in out


def test_a_changed_source_is_read_again_and_nothing_else_is(project: Path) -> None:
    place = project / "dags" / "bracelet" / "cleveland.csv"
    place.write_text("".join(place.read_text().splitlines(keepends=True)[:-2]))
    (plan,) = json.loads(call(project, "plan", "--json").stdout)
    assert plan["misses"]["data"] == [{"part": "state", "text": "cleveland.csv changed"}]
    (project / "dags" / "bracelet" / "README.md").write_text("prose\n")
    subprocess.run(["git", "checkout", "-q", str(place)], cwd=project, check=True)
    assert call(project, "plan").stdout == "= bracelet: same\n"


def test_a_changed_default_of_a_folder_above_is_a_change_of_the_pipeline(project: Path) -> None:
    defaults = project / "dags" / "defaults.yaml"
    defaults.write_text("task_defaults: {retries: 1}\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "add", "-A"], cwd=project, check=True)
    subprocess.run([*git, "commit", "-q", "-m", "defaults"], cwd=project, check=True)
    assert call(project, "plan").stdout == "= bracelet: same\n"
    defaults.write_text("task_defaults: {retries: 2}\n")
    assert "retries: '1' -> '2'" in call(project, "plan", "dags/bracelet/pipeline.yaml").stdout


def test_the_exit_code_says_whether_anything_changes(project: Path) -> None:
    assert call(project, "plan", "--exit-code").returncode == 0
    edit(project, '"0 3 * * 0"', "null")
    assert call(project, "plan").returncode == 0
    done = call(project, "plan", "--exit-code")
    assert done.returncode == 3
    assert "next runs after: none by time" in done.stdout


def test_added_and_removed_pipelines(project: Path) -> None:
    other = project / "dags" / "other.yaml"
    other.write_text("dag_id: other\ntasks:\n  - id: one\n")
    for file in (project / "dags" / "bracelet").iterdir():
        file.unlink()
    out = call(project, "plan").stdout
    assert "+ other: added" in out
    assert "- bracelet: removed" in out


def test_faults_come_first(project: Path) -> None:
    edit(project, "uses: ingest", "uses: ingst")
    done = call(project, "plan")
    assert done.returncode == 1
    assert 'did you mean "ingest"' in done.stderr


def test_an_unknown_revision(project: Path) -> None:
    done = call(project, "plan", "--against", "nowhere")
    assert done.returncode == 1
    assert "no such revision: nowhere" in done.stderr


@pytest.mark.parametrize("form", ["yaml", "python", "mermaid", "page", "svg"])
def test_every_form_is_rendered(project: Path, form: str) -> None:
    done = call(project, "render", "dags/bracelet/pipeline.yaml", "--format", form)
    assert done.returncode == 0, done.stderr
    assert "bracelet" in done.stdout or form in ("mermaid", "svg")
    if form == "python":
        ast.parse(done.stdout)


def test_pictures_are_files_and_the_same_every_time(project: Path) -> None:
    pictures = {}
    for number in (1, 2):
        for name in ("graph.png", "graph.svg"):
            assert call(project, "render", "dags/bracelet/pipeline.yaml", "-o", name).returncode == 0
            pictures[number, name] = (project / name).read_bytes()
    assert pictures[1, "graph.png"] == pictures[2, "graph.png"]
    assert pictures[1, "graph.png"].startswith(b"\x89PNG")
    assert pictures[1, "graph.svg"] == pictures[2, "graph.svg"]
    assert b"<svg" in pictures[1, "graph.svg"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--format", "png"], 2, "--output graph.png"),
        (["-o", "graph.gif"], 2, "Say --format"),
        (["-o", "nowhere/graph.svg"], 1, "cannot be written: No such file"),
        (["-o", "dags/bracelet/pipeline.yaml"], 1, "this is the pipeline itself"),
    ],
)
def test_what_render_refuses(project: Path, arguments: list[str], code: int, message: str) -> None:
    before = (project / "dags" / "bracelet" / "pipeline.yaml").read_bytes()
    done = call(project, "render", "dags/bracelet/pipeline.yaml", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert (project / "dags" / "bracelet" / "pipeline.yaml").read_bytes() == before


def test_a_page_per_pipeline(project: Path) -> None:
    assert call(project, "docs", "-o", "site").returncode == 0
    assert "bracelet.md" in (project / "site" / "index.md").read_text()
    assert "## Gates" in (project / "site" / "bracelet.md").read_text()


def test_a_new_pipeline_runs_at_once(project: Path) -> None:
    made = call(project, "new", "hearts", "--data", "dags/bracelet/cleveland.csv", "--label", "num")
    assert made.returncode == 0, made.stderr
    done = start(project, "run", "dags/hearts/pipeline.yaml", "--until", "onnx")
    assert done.returncode == 0, done.stderr
    assert call(project, "new", "hearts", "--data", "dags/bracelet/cleveland.csv").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "a/b", "--data", "dags/bracelet/cleveland.csv"], "is not a name"),
        (["new", "x", "--data", "none.csv"], "no such file"),
        (["new", "x", "--data", "dags/bracelet/cleveland.csv", "--label", "nun"], 'did you mean "num"'),
    ],
)
def test_what_new_refuses(project: Path, arguments: list[str], message: str) -> None:
    done = call(project, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (project / "dags" / "x").exists()


def test_a_pipeline_is_made_around_a_notebook(project: Path) -> None:
    folder = Path(__file__).parents[2] / "dags" / "bracelet-notebook"
    shutil.copy(folder / "explore.ipynb", project / "explore.ipynb")
    refused = call(project, "new", "hearts", "--from-notebook", "none.ipynb")
    assert refused.returncode == 1
    assert "no such file" in refused.stderr
    made = call(project, "new", "hearts", "--from-notebook", "explore.ipynb", "--data", "dags/bracelet/cleveland.csv",
                "--label", "num")  # fmt: skip
    assert made.returncode == 0, made.stderr
    text = (project / "dags" / "hearts" / "pipeline.yaml").read_text()
    assert "trees: {type: integer, default: 60}" in text
    assert "inputs: {path: train.csv}" in text
    assert call(project, "check", "dags/hearts").returncode == 0
    done = start(project, "run", "dags/hearts/pipeline.yaml", "--until", "quality")
    assert done.returncode == 0, done.stderr


def test_a_notebook_without_a_tag_gets_one(project: Path) -> None:
    cells = ["import pandas as pd", "csv = 'rows.csv'\ndepth = 3", "tree = Tree(depth).fit(pd.read_csv(csv))"]
    document = {
        "nbformat": 4, "nbformat_minor": 5, "metadata": {},
        "cells": [
            {"cell_type": "code", "id": str(n), "metadata": {}, "outputs": [], "execution_count": None, "source": cell}
            for n, cell in enumerate(cells)
        ],
    }  # fmt: skip
    (project / "explore.ipynb").write_text(json.dumps(document))
    shutil.copy(project / "dags" / "bracelet" / "cleveland.csv", project / "rows.csv")
    made = call(project, "new", "trees", "--from-notebook", "explore.ipynb")
    assert "cell 2 holds the parameters" in made.stdout
    text = (project / "dags" / "trees" / "pipeline.yaml").read_text()
    assert "returns: tree" in text
    assert call(project, "check", "dags/trees").returncode == 0
