"""``edgewright check``: whole trees, every fault, four formats, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgewright.cli.main import cli

GOOD = """\
dag_id: {name}
params:
  alpha: {{type: number, default: 0.1}}
tasks:
  - id: hello
    uses: airflow.providers.standard.operators.bash.BashOperator
    with: {{bash_command: echo hi}}
"""
BAD = """\
dag_id: bad
params:
  alpha: {type: numbr, default: 0.1}
tasks:
  - id: data
    uses: ingst
    with: {source: x.csv}
  - id: model
    uses: train
    needs: [dat]
    with: {data: {$x: data}, entry: "model:fit"}
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "dags" / name).mkdir(parents=True)
        (tmp_path / "dags" / name / "pipeline.yaml").write_text(GOOD.format(name=name))
    return tmp_path / "dags"


@pytest.fixture
def bad(tree: Path) -> Path:
    (tree / "bad").mkdir()
    (tree / "bad" / "pipeline.yaml").write_text(BAD)
    return tree / "bad" / "pipeline.yaml"


def check(*arguments: str):
    return CliRunner().invoke(cli, ["check", *arguments])


def test_a_tree_without_faults(tree: Path):
    result = check()
    assert result.exit_code == 0
    assert result.output.startswith("2 pipelines without faults, in ")


def test_every_fault_at_once_with_place_and_caret(bad: Path):
    result = check("dags")
    assert result.exit_code == 1
    assert "dags/bad/pipeline.yaml:3:17: params.alpha.type: 'numbr' is no type" in result.output
    assert 'did you mean "number"?' in result.output
    assert "dags/bad/pipeline.yaml:6:11: tasks[0].uses: no such step: 'ingst'" in result.output
    assert "tasks[1].needs" in result.output
    lines = result.output.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("    6 | "))
    assert lines[place + 1].index("^") == lines[place].index("ingst")
    assert lines[place + 1].count("^") == len("ingst")
    assert "in 1 pipeline, 2 without, in " in lines[-1]


def test_one_bad_pipeline_hides_no_other(bad: Path):
    document = json.loads(check("dags", "--json").output)
    assert {entry["dag_id"] for entry in document["pipelines"]} == {"one", "two", None}
    (broken,) = [entry for entry in document["pipelines"] if entry["faults"]]
    assert broken["file"] == "dags/bad/pipeline.yaml"
    assert document["faults"] == len(broken["faults"]) >= 3
    assert {"file", "line", "column", "path", "message", "allowed", "suggestion", "code", "end_column"} == set(
        broken["faults"][0]
    )


def test_json_formats_are_the_same(bad: Path):
    one, two = (json.loads(check("dags", *form).output) for form in (["--json"], ["--format", "json"]))
    assert one["pipelines"] == two["pipelines"]


def test_github_annotations(bad: Path):
    result = check("dags", "--format", "github")
    assert result.exit_code == 1
    first = result.output.splitlines()[0]
    assert first.startswith("::error file=dags/bad/pipeline.yaml,line=3,col=17,endColumn=22,title=")
    assert first.count("::") == 2
    assert "'numbr' is no type" in first


def test_sarif_names_rules_and_places(bad: Path):
    log = json.loads(check("dags", "--format", "sarif").output)
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert log["version"] == "2.1.0"
    for found in run["results"]:
        assert rules[found["ruleIndex"]] == found["ruleId"]
        place = found["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "dags/bad/pipeline.yaml"
        assert place["region"]["startLine"] >= 1
    assert check("dags/one", "--format", "sarif").exit_code == 0


def test_the_same_dag_id_twice(tree: Path):
    (tree / "two" / "pipeline.yaml").write_text(GOOD.format(name="one"))
    result = check()
    assert result.exit_code == 1
    assert "one" in result.output
    assert "1 fault in 1 pipeline, 1 without" in result.output


def test_a_path_that_is_not_there(tree: Path):
    result = check("nowhere")
    assert result.exit_code == 1
    assert "nowhere: no such file or folder" in result.stderr


def test_a_folder_without_pipelines_is_no_silent_success(tmp_path: Path):
    result = check(str(tmp_path))
    assert result.exit_code == 1
    assert "no pipelines here" in result.stderr


def test_no_user_code_is_imported_and_no_library(tree: Path):
    (tree / "one" / "pipeline.py").write_text("raise SystemExit(9)")
    code = (
        "import sys, edgewright.cli.main as m\n"
        "try: m.cli.main(['check'])\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        "print(sorted(set(sys.modules) & {'airflow', 'mlflow', 'pandas', 'numpy', 'sklearn', 'jsonschema'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tree.parent, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_hundred_pipelines_take_less_than_five_seconds(tmp_path: Path):
    for number in range(100):
        (tmp_path / f"p{number}.yaml").write_text(GOOD.format(name=f"p{number}"))
    clock = time.perf_counter()
    assert check(str(tmp_path)).exit_code == 0
    assert time.perf_counter() - clock < 5
