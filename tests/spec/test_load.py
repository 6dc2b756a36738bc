"""From text to a pipeline: what is made of it, where faults point, what is imported, how fast it is."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.errors import ConfigError, SpecError
from edgewright.spec import load_pipeline, parse_pipeline, render_faults
from edgewright.spec.pipeline import Constant, Pipeline, Reference, Template

BRACELET = Path(__file__).resolve().parents[2] / "dags" / "bracelet" / "pipeline.yaml"
BASH = "airflow.providers.standard.operators.bash.BashOperator"


def parse(text: str, folder: Path = Path()) -> Pipeline:
    return parse_pipeline(text, folder / "pipeline.yaml")


def faults_of(text: str, folder: Path = Path()) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(text, folder)
    return str(caught.value).splitlines()


def test_the_bracelet() -> None:
    pipeline = load_pipeline(BRACELET)
    assert [task.id for task in pipeline.tasks] == ["data", "checks", "model", "quality", "int8", "release", "live"]
    model = pipeline.task("model")
    assert model.is_step
    assert model.config["data"] == Reference("checks")
    assert model.config["args"] == {"alpha": Template("{{ params.alpha }}")}
    assert pipeline.task("release").needs == ("model", "int8")
    assert pipeline.params["alpha"]["default"] == 0.001
    assert pipeline.arguments["start_date"] == datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    assert pipeline.registered_model == "bracelet"


def test_the_same_text_gives_the_same_pipeline() -> None:
    text = BRACELET.read_text()
    assert parse_pipeline(text, BRACELET) == parse_pipeline(text, BRACELET)


def test_tasks_come_after_what_they_need_and_otherwise_in_the_documents_order() -> None:
    text = "dag_id: d\ntasks: [{id: c, needs: [a]}, {id: b}, {id: a}, {id: d, needs: [b, a, b]}]\n"
    pipeline = parse(text)
    assert [task.id for task in pipeline.tasks] == ["b", "a", "c", "d"]
    assert pipeline.task("d").needs == ("b", "a")


def test_arguments_are_typed() -> None:
    text = (
        "dag_id: d\nstart_date: 2026-01-01T03:00:00+01:00\ndagrun_timeout: 1d2h\ntasks:\n"
        "  - {id: a, retry_delay: PT5M, execution_timeout: 90, start_date: 2026-02-01}\n"
    )
    pipeline = parse(text)
    assert pipeline.arguments["start_date"].utcoffset() == datetime.timedelta(hours=1)
    assert pipeline.arguments["dagrun_timeout"] == datetime.timedelta(days=1, hours=2)
    assert pipeline.tasks[0].arguments == {
        "retry_delay": datetime.timedelta(minutes=5),
        "execution_timeout": datetime.timedelta(seconds=90),
        "start_date": datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC),
    }


def test_markers(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("SELECT 1")
    text = (
        f"dag_id: d\ntasks:\n  - {{id: a}}\n  - id: b\n    uses: {BASH}\n"
        "    with: {bash_command: {$f: q.sql}, env: {$const: {$x: kept}}, cwd: {$xcom: {task: a, key: k}},\n"
        "           append_env: {$template: {$file: q.sql}}, list: [{$x: a}, plain]}\n"
    )
    assert parse(text, tmp_path).task("b").config == {
        "bash_command": "SELECT 1",
        "env": Constant({"$x": "kept"}),
        "cwd": Reference("a", "k"),
        "append_env": Template("SELECT 1"),
        "list": [Reference("a"), "plain"],
    }
    assert parse(text, tmp_path).task("b").needs == ("a",)


def test_templates_merge_with_one_level_deep_and_replace_the_rest() -> None:
    text = (
        f"dag_id: d\ntemplates:\n  base: {{uses: {BASH}, with: {{bash_command: base, env: {{A: b}}}}, retries: 3}}\n"
        "  more: {extends: [base], with: {cwd: /x}, pool: p}\n"
        "tasks:\n  - {id: a, extends: more, with: {bash_command: mine, env: {C: d}}, retries: 0}\n"
    )
    task = parse(text).tasks[0]
    assert task.config == {"bash_command": "mine", "env": {"C": "d"}, "cwd": "/x"}
    assert task.arguments == {"retries": 0, "pool": "p"}


def test_a_fault_of_a_template_points_at_the_template_and_is_told_once() -> None:
    text = (
        "dag_id: d\ntemplates:\n  base:\n    retries: many\ntasks: [{id: a, extends: base}, {id: b, extends: base}]\n"
    )
    (fault,) = faults_of(text)
    assert fault.startswith("pipeline.yaml:4:14: tasks[0].retries: ")
    own = text.replace("{id: b, extends: base}", "{id: b, extends: base, retries: -1}")
    assert [line.split(": ")[1] for line in faults_of(own)] == ["tasks[0].retries", "tasks[1].retries"]


def test_profiles() -> None:
    text = "dag_id: d\ntasks: [{id: a}, {id: b, profile: gpu}, {id: c, profile: {prefer: gpu, else: local}}]\n"
    assert [(task.profile, task.preferred) for task in parse(text).tasks] == [
        (None, None), ("gpu", None), ("local", "gpu")
    ]  # fmt: skip


def test_triggers_and_profiles_are_kept() -> None:
    pipeline = parse(
        "dag_id: d\ntriggers: [{kafka: {topic: t}}]\nprofiles: {gpu: {on: docker, image: x}}\ntasks: [{id: a}]\n"
    )
    assert pipeline.triggers == ({"kafka": {"topic": "t"}},)
    assert pipeline.profiles == {"gpu": {"on": "docker", "image": "x"}}


def test_faults_are_sorted_and_shown_with_a_caret() -> None:
    text = "dag_id: d\ncatchp: true\ntasks:\n  - {id: a, needs: [b]}\n"
    with pytest.raises(SpecError) as caught:
        parse_pipeline(text, Path("/long/way/pipeline.yaml"), shown="pipeline.yaml")
    assert [fault.code for fault in caught.value.faults] == ["unknown-key", "unknown-task"]
    shown = render_faults(caught.value.faults, text).splitlines()
    assert shown[0].startswith("pipeline.yaml:2:1: catchp: unknown key 'catchp'; allowed are: ")
    assert shown[0].endswith('did you mean "catchup"?')
    assert shown[1:3] == ["    2 | catchp: true", "        ^^^^^^"]
    assert shown[4:] == ["    4 |   - {id: a, needs: [b]}", "                            ^"]


def test_of_a_long_line_the_part_around_the_fault_is_shown() -> None:
    task = f"{{id: a, doc: '{'z' * 900}', cathup: 1, tags: '{'y' * 900}'}}"
    text = f"dag_id: a\ntasks: [{task}]\n"
    with pytest.raises(SpecError) as raised:
        parse_pipeline(text, Path("pipeline.yaml"))
    _, shown, marks = render_faults(raised.value.faults[:1], text).splitlines()
    assert len(shown) < 180
    assert shown[marks.index("^") :].startswith("cathup: 1, tags: 'yyy")
    assert shown.startswith("    2 | ...zzz")
    assert shown.endswith("yyy...")
    assert marks.strip() == "^" * len("cathup")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_pipeline(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="this is a folder"):
        load_pipeline(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"dag_id: \xe4\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_pipeline(tmp_path / "latin.yaml")


def test_code_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    text = "dag_id: d\ntasks:\n  - {id: a, uses: ingest, with: {source: s3://b/a, label: y}}\n"
    text += '  - {id: b, uses: train, with: {data: {$x: a}, entry: "m.py:fit"}}\n'
    (tmp_path / "m.py").write_text("def fitt(data): ...\n")
    assert 'm.py has no fit; it has: fitt; did you mean "fitt"?' in faults_of(text, tmp_path)[0]
    (tmp_path / "m.py").write_text("def fit(data): raise SystemExit\n")
    assert parse(text, tmp_path).task("b").config["entry"] == "m.py:fit"


def test_an_operator_beside_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Own: ...\n")
    assert parse("dag_id: d\ntasks: [{id: a, uses: mine.Own}]\n", tmp_path).tasks[0].uses == "mine.Own"
    (fault,) = faults_of("dag_id: d\ntasks: [{id: a, uses: mine.Owm}]\n", tmp_path)
    assert fault.endswith('mine has no Owm; it has: Own; did you mean "mine.Own"?')


def test_reading_imports_neither_airflow_nor_a_machine_learning_library() -> None:
    code = (
        "import sys; from edgewright.spec import load_pipeline; load_pipeline(sys.argv[1]);"
        "print(sorted({'airflow', 'numpy', 'pandas', 'sklearn', 'mlflow', 'jsonschema', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(BRACELET)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_fault_is_one_line_whatever_the_document_holds() -> None:
    (fault,) = faults_of('dag_id: d\ntasks: [{id: a, "x\\ny\\0": 1}]\n')
    assert "tasks[0].x\\ny\\x00: unknown key 'x\\ny\\x00'" in fault
