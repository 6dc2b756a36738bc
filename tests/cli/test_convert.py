"""``edgewright convert``: dag-factory's documents become pipelines without faults, and nothing is lost in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgewright.cli.main import cli
from edgewright.spec import load_pipeline
from edgewright.spec.convert import operator_path

CORPUS = Path(__file__).parents[1] / "corpus" / "dagfactory"
STANDARD = "airflow.providers.standard"
BASH = f"{STANDARD}.operators.bash.BashOperator"


def convert(*arguments: object):
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


def write(folder: Path, text: str, name: str = "dags.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.yaml")), ids=lambda file: file.stem)
def test_what_is_written_passes_the_check(file: Path, tmp_path: Path):
    done = convert(file, "--output", tmp_path / "out")
    assert done.exit_code == (0 if file.stem == "plain" else 1), done.output
    checked = CliRunner().invoke(cli, ["check", str(tmp_path / "out")])
    assert checked.exit_code == 0, checked.output


def test_defaults_are_a_template_and_a_dag_wins_over_the_default_block(tmp_path: Path):
    assert convert(CORPUS / "plain.yaml", "-o", tmp_path).exit_code == 0
    pipeline = load_pipeline(tmp_path / "plain" / "pipeline.yaml")
    first, second, third = pipeline.tasks
    assert pipeline.schedule == "0 3 * * *"
    assert pipeline.arguments["max_active_tasks"] == 4
    assert first.arguments["owner"] == "data"
    assert first.arguments["retries"] == 1
    assert first.arguments["retry_delay"].total_seconds() == 300
    assert second.arguments["execution_timeout"].total_seconds() == 5400
    assert second.config["env"] == {"FLAG": "no", "NUMBER": "010"}
    assert third.needs == ("first", "second")
    assert load_pipeline(tmp_path / "second_dag" / "pipeline.yaml").tasks[0].arguments["retries"] == 2


def test_tasks_keep_the_ids_that_their_groups_gave_them_and_their_order(tmp_path: Path):
    convert(CORPUS / "groups.yaml", "-o", tmp_path)
    needs = {task.id: task.needs for task in load_pipeline(tmp_path / "groups" / "pipeline.yaml").tasks}
    assert needs == {"load.a": (), "load.b": ("load.a",), "clean.c": ("load.b",), "d": ("clean.c",)}


def test_every_loss_has_its_line_and_stands_in_the_text(tmp_path: Path):
    done = convert(CORPUS / "lost.yaml", "--json")
    document = json.loads(done.stdout)
    [pipeline] = document["pipelines"]
    lines = (CORPUS / "lost.yaml").read_text().splitlines()
    assert done.exit_code == 1
    assert document["not_converted"] == len(pipeline["not_converted"]) >= 9
    for loss in pipeline["not_converted"]:
        assert f"{loss['path'].rpartition('.')[2]}:" in lines[loss["line"] - 1]
        assert f"# not converted (line {loss['line']}): {loss['path']}: {loss['reason']}" in pipeline["text"]
    assert "a relative date has no fixed meaning" in pipeline["text"]
    assert '# start_date: "2 days"' in pipeline["text"]


def test_a_task_that_lost_its_work_fails(tmp_path: Path):
    convert(CORPUS / "lost.yaml", "-o", tmp_path)
    pipeline = load_pipeline(tmp_path / "lost" / "pipeline.yaml")
    lost = [task for task in pipeline.tasks if task.id != "mapped"]
    assert {task.uses for task in lost} == {BASH}
    assert all("exit 1" in task.config["bash_command"] for task in lost)


def test_defaults_beside_the_file_are_read_as_dag_factory_does(tmp_path: Path):
    write(tmp_path, "default_args: {owner: all, retries: 7}\nmax_active_runs: 3\n", "defaults.yml")
    text = f"one:\n  default_args: {{retries: 1}}\n  tasks:\n    a: {{operator: {BASH}, bash_command: echo a}}\n"
    assert convert(write(tmp_path, text), "-o", tmp_path / "out").exit_code == 0
    pipeline = load_pipeline(tmp_path / "out" / "one" / "pipeline.yaml")
    assert pipeline.arguments["max_active_runs"] == 3
    assert pipeline.tasks[0].arguments["owner"] == "all"
    assert pipeline.tasks[0].arguments["retries"] == 1


def test_an_environment_variable_is_a_loss_outside_of_a_shell(tmp_path: Path):
    text = f"one:\n  tasks:\n    a: {{operator: {BASH}, bash_command: echo $HOME, cwd: $HOME}}\n"
    done = convert(write(tmp_path, text))
    assert done.exit_code == 1
    assert "tasks.a.cwd: $HOME: environment variables are not read in a document" in done.stderr
    assert "bash_command: $HOME" not in done.stderr


def test_nothing_is_written_over(tmp_path: Path):
    convert(CORPUS / "plain.yaml", "-o", tmp_path)
    (tmp_path / "second_dag" / "pipeline.yaml").write_text("mine")
    done = CliRunner().invoke(cli, ["convert", str(CORPUS / "plain.yaml"), "-o", str(tmp_path)])
    assert done.exit_code != 0
    assert (tmp_path / "second_dag" / "pipeline.yaml").read_text() == "mine"


@pytest.mark.parametrize("text", ["a: [1", "- a\n", "just text\n", "", "&a {x: *a}\n", "default: {}\n"])
def test_what_is_no_dag_factory_document_is_refused_in_words(tmp_path: Path, text: str):
    done = convert(write(tmp_path, text))
    assert done.exit_code == 1
    assert type(done.exception).__name__ in ("ConfigError", "SystemExit"), done.exception


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("airflow.operators.bash_operator.BashOperator", BASH),
        ("airflow.operators.bash.BashOperator", BASH),
        ("airflow.operators.python_operator.PythonOperator", f"{STANDARD}.operators.python.PythonOperator"),
        ("airflow.operators.dummy.DummyOperator", f"{STANDARD}.operators.empty.EmptyOperator"),
        ("airflow.operators.dummy_operator.DummyOperator", f"{STANDARD}.operators.empty.EmptyOperator"),
        ("airflow.sensors.external_task_sensor.ExternalTaskSensor",
         "airflow.providers.standard.sensors.external_task.ExternalTaskSensor"),
        (BASH, BASH),
        ("package.module.Operator", "package.module.Operator"),
    ],
)  # fmt: skip
def test_operators_are_found_where_airflow_3_has_them(old: str, new: str):
    assert operator_path(old) == new


def test_expand_over_lists_becomes_for_each(tmp_path: Path):
    text = f"""
one:
  schedule: ["s3://raw/a", "s3://raw/b"]
  tasks:
    a:
      operator: {BASH}
      partial: {{cwd: /tmp, retries: 3}}
      expand: {{bash_command: [echo 1, echo 2]}}
"""
    assert convert(write(tmp_path, text), "-o", tmp_path / "out").exit_code == 0
    pipeline = load_pipeline(tmp_path / "out" / "one" / "pipeline.yaml")
    (task,) = pipeline.tasks
    assert pipeline.schedule == {"assets": ["s3://raw/a", "s3://raw/b"]}
    assert task.for_each is not None
    assert task.for_each.items == ({"bash_command": "echo 1"}, {"bash_command": "echo 2"})
    assert task.arguments == {"retries": 3}
    assert task.config["cwd"] == "/tmp"


def test_expand_over_an_output_is_listed(tmp_path: Path):
    text = f"one:\n  tasks:\n    a: {{operator: {BASH}, expand: {{bash_command: b.output}}}}\n"
    done = convert(write(tmp_path, text))
    assert done.exit_code == 1
    assert "tasks.a.expand: only lists that are written out are taken over" in done.stderr
