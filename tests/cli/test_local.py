"""The local runner on plain Airflow operators: order, values, templates, skips, retries, deferrals, refusals."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgewright.cli.local import LocalRunner
from edgewright.cli.outcome import RunOutcome
from edgewright.cli.rules import RULES, decide
from edgewright.errors import ConfigError, NotFound, UserCodeError
from edgewright.installation import Installation
from edgewright.spec.pipeline import Constant, Pipeline, Reference, Task, Template

BASH = "airflow.providers.standard.operators.bash.BashOperator"
OPERATORS = """
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.providers.standard.operators.branch import BaseBranchOperator

class Echo(BaseOperator):
    template_fields = ("value",)
    def __init__(self, *, value=None, plain=None, **kwargs):
        super().__init__(**kwargs)
        self.value, self.plain = value, plain
    def execute(self, context):
        context["ti"].xcom_push(key="plain", value=self.plain)
        return self.value

class Choose(BaseBranchOperator):
    def __init__(self, *, follow, **kwargs):
        super().__init__(**kwargs)
        self.follow = follow
    def choose_branch(self, context):
        return self.follow

class Never(BaseOperator):
    def execute(self, context):
        open("tries", "a").write("x")
        raise AirflowFailException("never")

class Leave(BaseOperator):
    def execute(self, context):
        raise SystemExit(3)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs tasks as one pipeline."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "ops.py").write_text(OPERATORS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))

    def run_tasks(*tasks: Task, params: dict[str, Any] | None = None, **options: Any) -> RunOutcome:
        pipeline = Pipeline(
            "here", folder / "pipeline.yaml", "", "0" * 64, tasks=tasks,
            params=options.pop("declared", {}), arguments=options.pop("arguments", {}),
        )  # fmt: skip
        return LocalRunner(
            pipeline, installation=Installation(home=tmp_path / "home"), params=params or {}, **options
        ).run()

    return run_tasks


def ended(pid: int) -> bool:
    """Wait a little for a process to end; one that nobody has waited for yet has ended too."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def states(outcome: RunOutcome) -> dict[str, str]:
    return {task.task.id: task.state for task in outcome.tasks}


def test_templates_and_references_between_operators(run):
    outcome = run(
        Task("hello", BASH, (), {"bash_command": Template("echo {{ params.word }} {{ ds }} {{ dag_run.conf.word }}")}),
        Task("again", BASH, ("hello",), {"bash_command": 'echo "$V"', "env": {"V": Reference("hello")}}),
        declared={"word": {"type": "string", "default": "hi"}},
    )
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    assert outcome.task("hello").value == f"hi {today} hi"
    assert outcome.task("again").value == f"hi {today} hi"
    assert outcome.state == "success"


def test_values_of_other_tasks_are_never_taken_for_templates(run):
    outcome = run(
        Task("one", "ops.Echo", (), {"value": Constant("{{ 1 + 1 }}"), "plain": Constant("{{ 2 }}")}),
        Task("two", "ops.Echo", ("one",), {"value": Reference("one"), "plain": Reference("one", "plain")}),
        Task("three", "ops.Echo", ("two",), {"value": {"deep": [Reference("two", "plain")]}}),
    )
    assert outcome.task("two").value == "{{ 1 + 1 }}"
    assert outcome.task("three").value == {"deep": ["{{ 2 }}"]}


def test_a_pure_param_keeps_its_type(run):
    outcome = run(
        Task("one", "ops.Echo", (), {"value": Template("{{ params.alpha }}")}),
        Task("two", "ops.Echo", (), {"value": Template("<{{ params.alpha }}>")}),
        declared={"alpha": {"type": "number", "default": 0.1}},
        params={"alpha": 0.25},
    )
    assert outcome.task("one").value == 0.25
    assert outcome.task("two").value == "<0.25>"


def test_xcom_pull_in_a_template(run):
    outcome = run(
        Task("one", "ops.Echo", (), {"value": {"k": 5}, "plain": "p"}),
        Task("two", "ops.Echo", ("one",), {"value": "{{ ti.xcom_pull(task_ids='one')['k'] }}"}),
        Task("three", "ops.Echo", ("one",), {"value": "{{ ti.xcom_pull('one', key='plain') }}"}),
    )
    assert (outcome.task("two").value, outcome.task("three").value) == ("5", "p")


def test_a_failure_stops_what_depends_on_it_and_nothing_else(run):
    outcome = run(
        Task("bad", BASH, (), {"bash_command": "exit 3"}),
        Task("after", None, ("bad",)),
        Task("further", None, ("after",)),
        Task("beside", None),
        Task("rescue", None, ("bad",), arguments={"trigger_rule": "one_failed"}),
        Task("always", None, ("after",), arguments={"trigger_rule": "all_done"}),
    )
    assert states(outcome) == {
        "bad": "failed", "after": "upstream_failed", "further": "upstream_failed", "beside": "success",
        "rescue": "success", "always": "success",
    }  # fmt: skip
    assert outcome.state == "failed"
    assert "exit code 3" in str(outcome.failed[0].error)


def test_a_skip_spreads(run):
    outcome = run(
        Task("skip", BASH, (), {"bash_command": "exit 99"}),
        Task("after", None, ("skip",)),
        Task("join", None, ("after",), arguments={"trigger_rule": "none_failed"}),
    )
    assert states(outcome) == {"skip": "skipped", "after": "skipped", "join": "success"}
    assert outcome.task("after").reason == "needs skip"
    assert outcome.state == "success"


def test_a_branch_skips_what_it_does_not_follow(run):
    outcome = run(
        Task("choose", "ops.Choose", (), {"follow": "left"}),
        Task("left", None, ("choose",)),
        Task("right", None, ("choose",)),
        Task("beyond", None, ("right",)),
        Task("join", None, ("left", "right"), arguments={"trigger_rule": "none_failed_min_one_success"}),
    )
    assert states(outcome) == {
        "choose": "success", "left": "success", "right": "skipped", "beyond": "skipped", "join": "success",
    }  # fmt: skip


def test_until_runs_only_what_a_task_needs_and_skip_leaves_out(run):
    tasks = (Task("a", None), Task("b", None, ("a",)), Task("c", None, ("b",)), Task("d", None))
    assert list(states(run(*tasks, until="b"))) == ["a", "b"]
    assert states(run(*tasks, skip=["b"])) == {"a": "success", "b": "skipped", "c": "skipped", "d": "success"}
    with pytest.raises(NotFound, match='no such task: bb; did you mean "b"'):
        run(*tasks, until="bb")


def test_system_faults_are_tried_again_as_often_as_said(run, tmp_path: Path):
    once = f"test -e {tmp_path}/flag || {{ touch {tmp_path}/flag; exit 1; }}"
    clock = time.perf_counter()
    outcome = run(
        Task("flaky", BASH, (), {"bash_command": once}, {"retries": 2, "retry_delay": datetime.timedelta(seconds=0.2)})
    )
    assert outcome.state == "success"
    assert outcome.task("flaky").tries == 2
    assert time.perf_counter() - clock >= 0.2


def test_retries_may_come_from_default_args(run):
    outcome = run(
        Task("bad", BASH, (), {"bash_command": "exit 1"}),
        arguments={"default_args": {"retries": 1, "retry_delay": 0}},
    )
    assert outcome.task("bad").tries == 2


def test_what_says_that_trying_again_is_no_use_is_not_tried_again(run, tmp_path: Path):
    outcome = run(Task("never", "ops.Never", (), {}, {"retries": 3, "retry_delay": 0}))
    assert outcome.state == "failed"
    assert (tmp_path / "tries").read_text() == "x"


def test_execution_timeout_stops_a_task_and_what_it_started(run, tmp_path: Path):
    clock = time.perf_counter()
    command = f"echo $$ > {tmp_path}/pid; exec sleep 30"
    outcome = run(Task("slow", BASH, (), {"bash_command": command}, {"execution_timeout": 1, "retries": 0}))
    assert ended(int((tmp_path / "pid").read_text()))
    assert isinstance(outcome.failed[0].error, UserCodeError)
    assert "longer than its execution_timeout of 1 s" in str(outcome.failed[0].error)
    assert time.perf_counter() - clock < 20


def test_a_deferring_sensor_waits_for_its_trigger(run):
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=6)
    outcome = run(
        Task(
            "wait",
            "airflow.providers.standard.sensors.date_time.DateTimeSensorAsync",
            (),
            {"target_time": when.isoformat()},
        )
    )
    assert outcome.failed == []
    assert datetime.datetime.now(datetime.UTC) >= when


def test_a_rescheduling_sensor_pokes_in_place(run, tmp_path: Path):
    flag = tmp_path / "flag"
    outcome = run(
        Task(
            "wait",
            "airflow.providers.standard.sensors.bash.BashSensor",
            (),
            {
                "bash_command": f"test -e {flag} || {{ touch {flag}; exit 1; }}",
                "mode": "reschedule",
                "poke_interval": 0.1,
                "timeout": 20,
            },
        )
    )
    assert outcome.state == "success"


def test_sys_exit_in_an_operator_fails_its_task_only(run):
    outcome = run(Task("leave", "ops.Leave"), Task("beside", None))
    assert states(outcome) == {"leave": "failed", "beside": "success"}
    assert "called sys.exit(3)" in str(outcome.failed[0].error)


@pytest.mark.parametrize(
    ("uses", "config", "message"),
    [
        ("airflow.providers.standard.operators.bash.BashOperatr", {}, "no such operator"),
        ("no.such.module.Operator", {}, "is its provider package installed?"),
        ("os.path.join", {}, "is not an operator"),
        (BASH, {"bash_comand": "x"}, "tasks.t.with"),
    ],
)
def test_a_wrong_operator_says_what_is_wrong(run, uses: str, config: dict[str, Any], message: str):
    outcome = run(Task("t", uses, (), config))
    assert isinstance(outcome.failed[0].error, ConfigError)
    assert message in str(outcome.failed[0].error)


def test_what_needs_a_server_is_refused(run):
    trigger = "airflow.providers.standard.operators.trigger_dagrun.TriggerDagRunOperator"
    outcome = run(Task("other", trigger, (), {"trigger_dag_id": "x"}))
    assert "needs Airflow's server" in str(outcome.failed[0].error)
    assert "--skip other" in str(outcome.failed[0].error)


def test_a_profile_that_is_not_here_is_refused_before_anything_runs(run, tmp_path: Path):
    tasks = (
        Task("first", BASH, (), {"bash_command": f"touch {tmp_path}/ran"}),
        Task("gpu", "ingest", ("first",), is_step=True, profile="gpu-small"),
    )
    with pytest.raises(ConfigError, match="there is no profile gpu-small"):
        run(*tasks)
    assert not (tmp_path / "ran").exists()
    assert states(run(*tasks, skip=["gpu"]))["first"] == "success"


def test_an_undefined_name_in_a_template_fails_the_task_and_says_which(run):
    outcome = run(Task("t", "ingest", (), {"source": Template("{{ nosuch }}.csv")}, is_step=True))
    assert "'nosuch' is undefined" in str(outcome.failed[0].error)


def test_templates_are_sandboxed(run):
    outcome = run(Task("t", "ingest", (), {"source": Template("{{ ''.__class__.__mro__ }}")}, is_step=True))
    assert "unsafe" in str(outcome.failed[0].error)


def test_two_runs_in_one_second_have_two_names(run):
    names = {run(Task("a", None)).run_id for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("local__") for name in names)


@pytest.mark.parametrize(
    ("rule", "upstream", "verdict"),
    [
        ("all_success", "success success", "run"),
        ("all_success", "success skipped", "skipped"),
        ("all_success", "failed skipped", "upstream_failed"),
        ("all_failed", "failed upstream_failed", "run"),
        ("all_failed", "failed success", "skipped"),
        ("all_done", "failed skipped", "run"),
        ("one_success", "failed success", "run"),
        ("one_success", "failed skipped", "upstream_failed"),
        ("one_success", "skipped skipped", "skipped"),
        ("one_failed", "success success", "skipped"),
        ("one_done", "skipped skipped", "skipped"),
        ("one_done", "skipped failed", "run"),
        ("none_failed", "skipped success", "run"),
        ("none_failed", "upstream_failed success", "upstream_failed"),
        ("none_failed_min_one_success", "skipped skipped", "skipped"),
        ("none_skipped", "failed success", "run"),
        ("none_skipped", "skipped success", "skipped"),
        ("all_skipped", "skipped skipped", "run"),
        ("all_skipped", "skipped success", "skipped"),
        ("all_done_min_one_success", "failed success", "run"),
        ("always", "failed", "run"),
    ],
)
def test_trigger_rules(rule: str, upstream: str, verdict: str):
    assert decide(rule, upstream.split()) == verdict
    assert decide(rule, []) == "run"


def test_every_rule_of_airflow_is_known():
    from airflow.sdk import TriggerRule

    assert {rule.value for rule in TriggerRule} <= set(RULES)
