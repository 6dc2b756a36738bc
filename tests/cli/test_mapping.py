"""Groups, `for_each`, `best_of`, setup and teardown in the local runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgewright.cli.local import LocalRunner
from edgewright.cli.outcome import RunOutcome
from edgewright.installation import Installation
from edgewright.spec import parse_pipeline

OPERATORS = """
from airflow.sdk import BaseOperator

class Score(BaseOperator):
    template_fields = ("value", "name")
    def __init__(self, *, value=None, name="", **kwargs):
        super().__init__(**kwargs)
        self.value, self.name = value, name
    def execute(self, context):
        if self.value == "fail":
            raise ValueError("it must")
        context["ti"].xcom_push(key="pushed", value=f"pushed {self.name}")
        return {"score": self.value, "name": self.name}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs the tasks of a YAML text."""
    (tmp_path / "ops.py").write_text(OPERATORS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))

    def run_text(tasks: str, **options: Any) -> RunOutcome:
        pipeline = parse_pipeline(f"dag_id: here\n{tasks}", tmp_path / "pipeline.yaml")
        return LocalRunner(pipeline, installation=Installation(home=tmp_path / "home"), **options).run()

    return run_text


SWEEP = """
params: {values: [1, 5, 3]}
tasks:
  - id: search
    for_each: {value: {$t: "{{ params.values }}"}, word: [a, b]}
    best_of: {metric: score, task: measure}
    tasks:
      - id: model
        uses: ops.Score
        with: {name: {$t: "{{ item.word }}{{ item.value }}"}, value: {$t: "{{ item.value }}"}}
      - id: measure
        uses: ops.Score
        with: {value: {$x: {task: model, key: score}}, name: {$x: {task: model, key: name}}}
  - {id: best, uses: ops.Score, with: {value: {$x: search.model}, name: {$x: {task: search.model, key: pushed}}}}
"""


def test_the_best_of_all_combinations_goes_on(run) -> None:
    outcome = run(SWEEP)
    assert outcome.state == "success"
    model = outcome.task("search.model")
    assert [one.label for one in model.instances] == [
        f"value={value}, word={word}" for value in (1, 5, 3) for word in "ab"
    ]
    assert [one.value["score"] for one in model.instances] == [1, 1, 5, 5, 3, 3]  # the params' own type
    assert outcome.task("best").value == {"score": {"score": 5, "name": "a5"}, "name": "pushed a5"}
    assert outcome.chosen == {"search.measure": "the best of 6 by score is [2] value=5, word=a: 5"}


def test_a_param_of_the_run_gives_the_items(run) -> None:
    assert len(run(SWEEP, params={"values": [7]}).task("search.model").instances) == 2
    outcome = run(SWEEP, params={"values": []})
    assert {task.state for task in outcome.tasks} == {"skipped"}
    assert outcome.task("search.model").reason == "there are no items"


def test_items_that_fail_do_not_compete_and_stop_only_their_own_chain(run) -> None:
    outcome = run(SWEEP.replace("[1, 5, 3]", '[1, "fail", 3]'))
    model, measure = outcome.task("search.model"), outcome.task("search.measure")
    assert [one.state for one in model.instances] == ["success"] * 2 + ["failed"] * 2 + ["success"] * 2
    assert [one.state for one in measure.instances] == ["success"] * 2 + ["upstream_failed"] * 2 + ["success"] * 2
    assert outcome.task("best").state == "upstream_failed"


def test_all_outputs_are_a_list_and_can_be_mapped_over_again(run) -> None:
    outcome = run("""
tasks:
  - {id: one, for_each: [2, 1], uses: ops.Score, with: {value: {$t: "{{ item }}"}, name: n}}
  - {id: every, uses: ops.Score, with: {value: {$x: {task: one, key: score}}}}
  - {id: two, for_each: {$x: one}, uses: ops.Score, with: {value: {$t: "{{ item.score }}"}}}
""")
    assert outcome.task("every").value["score"] == [2, 1]
    assert [one.value["score"] for one in outcome.task("two").instances] == [2, 1]


def test_what_is_no_list_is_refused_with_the_task(run) -> None:
    outcome = run("""
tasks:
  - {id: one, uses: ops.Score, with: {value: text}}
  - {id: two, for_each: {$x: {task: one, key: score}}, uses: ops.Score}
""")
    assert "two.for_each: str is no list" in str(outcome.task("two").error)


def test_a_part_that_the_item_lacks_is_named(run) -> None:
    outcome = run("""
params: {items: [{a: 1}]}
tasks:
  - {id: one, for_each: {$t: "{{ params.items }}"}, uses: ops.Score, with: {value: {$t: "{{ item.b }}"}}}
""")
    assert "the item has no 'b'" in str(outcome.task("one").error)


def test_a_teardown_runs_after_a_failure_and_its_own_fails_no_run(run) -> None:
    text = """
tasks:
  - {id: up, setup: true, uses: ops.Score, with: {value: 1}}
  - {id: work, needs: [up], uses: ops.Score, with: {value: WORK}}
  - {id: down, teardown: [up], needs: [work], uses: ops.Score, with: {value: DOWN}}
"""
    outcome = run(text.replace("WORK", "fail").replace("DOWN", "2"))
    assert (outcome.state, outcome.task("down").state) == ("failed", "success")
    outcome = run(text.replace("WORK", "1").replace("DOWN", "fail"))
    assert (outcome.state, outcome.task("down").state) == ("success", "failed")
    outcome = run(text.replace("value: 1}}", "value: fail}}", 1))
    assert outcome.task("down").state == "upstream_failed"


def test_steps_are_cached_item_by_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text(f"x,y\n1,{name}\n2,{name}\n")

    def states(names: str) -> list[bool]:
        text = (
            f"dag_id: files\ntasks:\n  - {{id: data, for_each: [{names}], uses: ingest, "
            'with: {source: {$t: "{{ item }}.csv"}}}\n'
        )
        pipeline = parse_pipeline(text, tmp_path / "pipeline.yaml")
        outcome = LocalRunner(pipeline, installation=Installation(home=tmp_path / "home")).run()
        assert outcome.state == "success"
        assert len({result["outputs"]["dataset"]["sha256"] for result in outcome.results}) == len(outcome.results)
        return [one.cached for one in outcome.task("data").instances]

    assert states("a, b") == [False, False]
    assert states("a, b, c") == [True, True, False]
