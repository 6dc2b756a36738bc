"""The same pipeline of ten tasks in every language that :file:`bench/parse.py` measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

TASKS = 10
_BASH = "airflow.providers.standard.operators.bash.BashOperator"


def plain(number: int) -> dict[str, str]:
    """A Dag as a Python file."""
    lines = [
        "import datetime",
        "",
        "from airflow.providers.standard.operators.bash import BashOperator",
        "from airflow.sdk import DAG",
        "",
        "with DAG(",
        f'    "plain_{number}", schedule="@daily", start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),',
        '    catchup=False, tags=["bench"],',
        "):",
    ]
    for task in range(TASKS):
        arguments = f'task_id="t{task}", bash_command="echo {number} {task}", retries=1'
        lines.append(f"    t{task} = BashOperator({arguments}, retry_delay=datetime.timedelta(minutes=5))")
        if task:
            lines.append(f"    t{task - 1} >> t{task}")
    return {f"plain_{number}.py": "\n".join(lines) + "\n"}


def _document(number: int, schema: str) -> str:
    lines = [
        f"$schema: {schema}",
        f"dag_id: yaml_{number}",
        'schedule: "@daily"',
        "start_date: 2026-01-01",
        "catchup: false",
        "tags: [bench]",
        "tasks:",
    ]
    for task in range(TASKS):
        lines += [f"  - id: t{task}", f"    uses: {_BASH}", "    retries: 1", "    retry_delay: PT5M"]
        if task:
            lines.append(f"    needs: [t{task - 1}]")
        lines.append(f"    with: {{bash_command: echo {number} {task}}}")
    return "\n".join(lines) + "\n"


def ours(number: int) -> dict[str, str]:
    """A pipeline of Bash tasks, in a folder of its own."""
    return {f"p{number}/pipeline.yaml": _document(number, "https://edgewright.dev/schema/pipeline/v1.json")}


def airflow_yaml(number: int) -> dict[str, str]:
    """The same document for Airflow 3.4's own importer."""
    return {f"yaml_{number}.yaml": _document(number, "https://airflow.apache.org/schemas/dag/2026-10-30.json")}


_STEPS = """\
$schema: https://edgewright.dev/schema/pipeline/v1.json
dag_id: steps_{number}
schedule: "@daily"
start_date: 2026-01-01
catchup: false
tags: [bench]
params:
  alpha: {{type: number, default: 0.001, minimum: 0}}
tasks:
  - id: data
    uses: ingest
    with: {{source: data.csv, label: label, split: {{test: 0.25, seed: {number}, stratify: true}}}}
  - {{id: checks, uses: validate, with: {{data: {{$x: data}}, schema: model.py:Table}}}}
  - id: small
    uses: train
    with: {{data: {{$x: checks}}, entry: model.py:fit, args: {{alpha: {{$t: "{{{{ params.alpha }}}}"}}}}}}
  - {{id: large, uses: train, with: {{data: {{$x: checks}}, entry: model.py:fit, args: {{alpha: 0.1}}}}}}
  - {{id: quality_small, uses: evaluate, with: {{model: {{$x: small}}, data: {{$x: checks}}, gates: {{accuracy: ">= 0.7"}}}}}}
  - {{id: quality_large, uses: evaluate, with: {{model: {{$x: large}}, data: {{$x: checks}}, gates: {{accuracy: ">= 0.7"}}}}}}
  - {{id: onnx, uses: quantize, needs: [quality_large], with: {{model: {{$x: large}}, data: {{$x: checks}}, target: onnx}}}}
  - {{id: int8, uses: quantize, needs: [quality_small], with: {{model: {{$x: small}}, data: {{$x: checks}}, target: onnx-int8}}}}
  - {{id: release, uses: publish, with: {{models: [{{$x: onnx}}, {{$x: int8}}], name: bench_{number}, alias: champion}}}}
  - {{id: live, uses: deploy, with: {{release: {{$x: release}}, to: {{service: bench}}}}}}
"""  # noqa: E501 - one task a line


def our_steps(number: int) -> dict[str, str]:
    """A pipeline of ten Edgewright steps with its code and data."""
    code = "class Table:\n    pass\n\n\ndef fit(data, alpha=0.1):\n    return None\n"
    return {
        f"s{number}/pipeline.yaml": _STEPS.format(number=number),
        f"s{number}/model.py": code,
        f"s{number}/data.csv": "value,label\n1,0\n2,1\n",
    }


def dag_factory(number: int) -> dict[str, str]:
    """The same for dag-factory."""
    lines = [f"factory_{number}:", '  schedule: "@daily"', "  start_date: 2026-01-01", "  catchup: false"]
    lines += ["  tags: [bench]", "  tasks:"]
    for task in range(TASKS):
        lines += [f"    - task_id: t{task}", f"      operator: {_BASH}", f"      bash_command: echo {number} {task}"]
        lines += ["      retries: 1", "      retry_delay: {__type__: datetime.timedelta, minutes: 5}"]
        if task:
            lines.append(f"      dependencies: [t{task - 1}]")
    return {f"factory_{number}.yaml": "\n".join(lines) + "\n"}


BLUEPRINTS = """\
import datetime

from airflow.providers.standard.operators.bash import BashOperator
from blueprint import BaseModel, Blueprint


class ShellConfig(BaseModel):
    bash_command: str
    retries: int = 1


class Shell(Blueprint[ShellConfig]):
    \"\"\"A Bash command.\"\"\"

    def render(self, config):
        return BashOperator(
            task_id=self.step_id, bash_command=config.bash_command, retries=config.retries,
            retry_delay=datetime.timedelta(minutes=5),
        )
"""


def blueprint(number: int) -> dict[str, str]:
    """The same for airflow-blueprint, whose tasks are templates in Python."""
    # its default Dag arguments are schedule and description; tags and start_date would need a class of our own
    lines = [f"dag_id: blueprint_{number}", 'schedule: "@daily"', "steps:"]
    for task in range(TASKS):
        lines += [f"  t{task}:", "    blueprint: shell", f"    bash_command: echo {number} {task}", "    retries: 1"]
        if task:
            lines.append(f"    depends_on: [t{task - 1}]")
    return {f"blueprint_{number}.dag.yaml": "\n".join(lines) + "\n", "templates.py": BLUEPRINTS}


WRITERS: dict[str, Callable[[int], dict[str, str]]] = {
    "plain": plain,
    "ours": ours,
    "our-steps": our_steps,
    "airflow-yaml": airflow_yaml,
    "dag-factory": dag_factory,
    "blueprint": blueprint,
}


def write(language: str, count: int, folder: Path) -> None:
    """Write ``count`` pipelines of a language below a folder."""
    for number in range(count):
        for name, text in WRITERS[language](number).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
