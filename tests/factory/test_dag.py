"""From a YAML text to an Airflow Dag."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.serialization.serialized_objects import DagSerialization
from support import airflow_env

from edgewright.errors import ConfigError, SpecError
from edgewright.factory import dag_from_yaml

BRACELET = Path(__file__).parents[2] / "dags" / "bracelet" / "pipeline.yaml"
BASH = "airflow.providers.standard.operators.bash.BashOperator"
PYTHON = "airflow.providers.standard.operators.python.PythonOperator"


def test_the_example_becomes_a_dag():
    dag = dag_from_yaml(BRACELET)
    assert dag.dag_id == "bracelet"
    assert dag.schedule == "0 3 * * 0"
    assert dag.tags == {"edgewright"}
    assert [type(task).__name__ for task in dag.tasks] == [
        "IngestOperator", "ValidateOperator", "TrainOperator", "EvaluateOperator", "QuantizeOperator",
        "PublishOperator", "DeployOperator",
    ]  # fmt: skip
    assert dag.get_task("int8").upstream_task_ids == {"quality", "model", "checks"}
    assert dag.get_task("model").config["args"] == {"alpha": {"$t": "{{ params.alpha }}"}}
    assert dag.params.get_param("alpha").schema == {"type": "number", "minimum": 0}
    assert BRACELET.read_text().strip() in dag.doc_md
    assert dag.start_date == datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_a_text_is_taken_too(tmp_path: Path):
    dag = dag_from_yaml("dag_id: a\ntasks:\n  - {id: t}\n", folder=tmp_path)
    assert [task.task_id for task in dag.tasks] == ["t"]


def test_a_file_elsewhere_keeps_its_code_in_another_folder(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(BRACELET.read_text())
    dag = dag_from_yaml(tmp_path / "p.yaml", folder=BRACELET.parent)
    assert dag.get_task("model")._folder() == BRACELET.parent


def test_every_fault_is_told_with_its_place(tmp_path: Path):
    (tmp_path / "p.yaml").write_text("dag_id: a\ntasks:\n  - {id: t, uses: trian}\n  - {id: u, needs: [v]}\n")
    with pytest.raises(SpecError) as caught:
        dag_from_yaml(tmp_path / "p.yaml")
    assert [(fault.line, fault.code) for fault in caught.value.faults] == [(3, "unknown-step"), (4, "unknown-task")]
    assert 'did you mean "train"?' in str(caught.value)


def test_steps_are_tried_again_unless_the_task_says_otherwise():
    text = BRACELET.read_text().replace("  - id: checks\n", "  - id: checks\n    retries: 0\n    retry_delay: 1m\n")
    dag = dag_from_yaml(text, folder=BRACELET.parent)
    assert dag.get_task("data").retries == 2
    assert dag.get_task("data").retry_exponential_backoff == 2.0
    assert dag.get_task("checks").retries == 0
    assert dag.get_task("checks").retry_delay == datetime.timedelta(minutes=1)


def plain(tmp_path: Path, tasks: str, head: str = "") -> Any:
    return dag_from_yaml(f"dag_id: plain\n{head}tasks:\n{tasks}", folder=tmp_path)


def test_task_arguments_reach_airflow(tmp_path: Path):
    dag = plain(
        tmp_path,
        f"""
  - {{id: a, uses: {BASH}, with: {{bash_command: "true"}}, trigger_rule: all_done, execution_timeout: PT5M, pool: p,
      outlets: ["s3://x/y"], on_failure_callback: logging.info, depends_on_past: true}}
""",
        "tags: [heart]\nmax_active_runs: 1\ndagrun_timeout: 2h\ncatchup: true\nschedule: '@daily'\n"
        "start_date: 2026-01-01\n",
    )
    task = dag.get_task("a")
    assert task.trigger_rule == "all_done"
    assert task.execution_timeout == datetime.timedelta(minutes=5)
    assert task.pool == "p"
    assert [asset.uri for asset in task.outlets] == ["s3://x/y"]
    assert task.has_on_failure_callback
    assert dag.tags == {"edgewright", "heart"}
    assert dag.dagrun_timeout == datetime.timedelta(hours=2)
    assert dag.catchup


def test_a_timetable_is_built_from_its_path(tmp_path: Path):
    arguments = '{expression: "0 3 * * *", timezone: UTC, interval: 1d}'
    head = f"schedule: {{uses: airflow.sdk.CronTriggerTimetable, with: {arguments}}}\n"
    dag = plain(tmp_path, "  - {id: a}\n", head)
    assert type(dag.timetable).__name__ == "CronTriggerTimetable"
    assert dag.timetable.interval == datetime.timedelta(days=1)


def test_texts_of_plain_operators_are_literal_unless_marked(tmp_path: Path):
    tasks = """
  - {id: a, uses: BASH, with: {bash_command: "echo '{{ literal }}'"}}
  - {id: b, uses: BASH, with: {bash_command: {$t: "echo {{ run_id }}.sh"}, env: {A: {$x: a}, B: "{{ no }}"}}}
"""
    dag = plain(tmp_path, tasks.replace("BASH", BASH))
    run = airflow_env.run(dag)
    assert run.state == "success"
    assert airflow_env.xcom(run, "a") == "{{ literal }}"
    assert airflow_env.xcom(run, "b") == f"{run.run_id}.sh"
    assert dag.get_task("a").template_fields == ("env", "cwd")


def test_cache_and_profile_of_a_step_reach_its_operator():
    text = BRACELET.read_text().replace(
        "    uses: ingest\n", "    uses: ingest\n    cache: 'off'\n    profile: {prefer: gpu-small, else: local}\n"
    )
    task = dag_from_yaml(text, folder=BRACELET.parent).get_task("data")
    assert (task.cache, task.profile, task.preferred) == ("off", "local", "gpu-small")


USER = """
from airflow.sdk import BaseOperator

class Show(BaseOperator):
    template_fields = ("value",)
    def __init__(self, *, value=None, plain=None, **kwargs):
        super().__init__(**kwargs)
        self.value, self.plain = value, plain
    def execute(self, context):
        context["ti"].xcom_push(key="pushed", value=[self.plain])
        return {"value": self.value, "kind": type(self.value).__name__}
"""


def test_values_of_plain_operators(tmp_path: Path):
    (tmp_path / "ops.py").write_text(USER)
    dag = plain(
        tmp_path,
        """
  - {id: a, uses: ops.Show, with: {value: {$t: "{{ params.n }}"}, plain: 5}}
  - {id: b, uses: ops.Show, with: {value: {$x: {task: a, key: pushed}}}}
  - {id: c, uses: ops.Show, with: {value: [{$x: {task: a, key: kind}}, "{{ x }}", {$const: {$x: a}}]}}
  - {id: d, uses: ops.Show, with: {value: {$x: c}}}
""",
        "params: {n: {type: integer, default: 3}}\n",
    )
    run = airflow_env.run(dag, run_conf={"n": 4})
    assert run.state == "success"
    assert airflow_env.xcom(run, "a") == {"value": 4, "kind": "int"}
    assert airflow_env.xcom(run, "b")["value"] == [5]
    assert airflow_env.xcom(run, "c")["value"] == ["int", "{{ x }}", {"$x": "a"}]
    assert airflow_env.xcom(run, "d")["value"]["kind"] == "list"
    assert "ops" not in sys.modules


def test_steps_and_plain_operators_take_from_each_other(tmp_path: Path, home: Path):
    (tmp_path / "ops.py").write_text(USER)
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(10)))
    dag = plain(
        tmp_path,
        """
  - {id: name, uses: ops.Show, with: {value: a.csv, plain: y}}
  - {id: data, uses: ingest, with: {source: {$x: {task: name, key: value}}, columns: [x, y], label: y}}
  - {id: rows, uses: ops.Show, with: {value: {$x: {task: data, key: rows}}}}
  - {id: whole, uses: ops.Show, with: {value: {$x: data}}}
""",
    )
    run = airflow_env.run(dag)
    assert airflow_env.states(run) == dict.fromkeys(("name", "data", "rows", "whole"), "success")
    assert airflow_env.xcom(run, "rows")["value"] == 10
    assert airflow_env.xcom(run, "whole")["value"]["outputs"]["dataset"]["kind"] == "dataset"


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("  - {id: a, uses: no.such.Operator}\n", "no module named 'no'"),
        ("  - {id: a, uses: logging.Logger}\n", "logging.Logger is no operator"),
        ("  - {id: a, uses: edgewright.operators.TrainOperator}\n", "write uses: train"),
        (f"  - {{id: a, uses: {BASH}, with: {{bash_comand: x}}}}\n", 'did you mean "bash_command"?'),
        (f"  - {{id: a, uses: {BASH}, with: {{retries: 1}}}}\n", "'retries' is an argument of the task"),
        (f"  - {{id: a, uses: {BASH}}}\n", "missing keyword argument 'bash_command'"),
        (f"  - {{id: a, uses: {BASH}, with: {{bash_command: x, retry_exit_code: {{$t: '1'}}}}}}\n", "retry_exit_code"),
        ("  - {id: a, profile: gpu}\n", "profile 'gpu' is for steps"),
        ("  - {id: a, on_failure_callback: no.such.function}\n", "no.such.function cannot be imported"),
    ],
)
def test_what_airflow_refuses_is_told_in_words(tmp_path: Path, tasks: str, message: str):
    with pytest.raises((ConfigError, SpecError)) as caught:
        plain(tmp_path, tasks)
    assert message in str(caught.value)


CHILD = """
import json, sys
from pathlib import Path
from edgewright.factory import dag_from_yaml
dag = dag_from_yaml(Path(sys.argv[1]))
from airflow.serialization.serialized_objects import DagSerialization
heavy = {"mlflow", "sklearn", "onnx", "onnxruntime", "skl2onnx", "pandas", "numpy", "pyarrow", "matplotlib", "pandera"}
print("\\n" + json.dumps({"dag": DagSerialization.to_dict(dag), "heavy": sorted(heavy & set(sys.modules))}))
"""


def test_the_same_text_gives_the_same_dag_in_every_process_and_imports_nothing_heavy():
    answers = []
    for seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(BRACELET)],
            env={**airflow_env.child_environment(), "PYTHONHASHSEED": seed},
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert answers[0]["heavy"] == []
    # Airflow hashes a Dag with sorted keys; the order of a mapping is no difference
    assert json.dumps(answers[0]["dag"], sort_keys=True) == json.dumps(answers[1]["dag"], sort_keys=True)


def test_a_change_of_any_value_changes_the_serialized_task():
    def task(text: str) -> Any:
        dag = dag_from_yaml(text, folder=BRACELET.parent)
        return next(
            t["__var"] for t in DagSerialization.to_dict(dag)["dag"]["tasks"] if t["__var"]["task_id"] == "data"
        )

    assert task(BRACELET.read_text()) != task(BRACELET.read_text().replace("seed: 7", "seed: 8"))


def test_a_continuous_schedule_runs_once_at_a_time(tmp_path: Path):
    text = 'dag_id: a\nschedule: "@continuous"\nstart_date: 2026-01-01\ntasks:\n  - {id: t}\n'
    dag = dag_from_yaml(text, folder=tmp_path)
    assert dag.max_active_runs == 1


def test_timetables_take_lists_of_dates_and_months(tmp_path: Path):
    events = "{uses: airflow.timetables.events.EventsTimetable, with: {event_dates: [2026-01-31, 2026-02-28]}}"
    dag = dag_from_yaml(f"dag_id: a\nschedule: {events}\ntasks:\n  - {{id: t}}\n", folder=tmp_path)
    data = DagSerialization.to_dict(dag)["dag"]["timetable"]["__var"]
    assert data["event_dates"] == ["2026-01-31T00:00:00+00:00", "2026-02-28T00:00:00+00:00"]
    months = "{uses: airflow.timetables.trigger.DeltaTriggerTimetable, with: {delta: P1M}}"
    dag = dag_from_yaml(f"dag_id: a\nschedule: {months}\ntasks:\n  - {{id: t}}\n", folder=tmp_path)
    assert DagSerialization.to_dict(dag)["dag"]["timetable"]["__var"]["delta"] == {"months": 1}
