"""What operators take, read from their sources: right where it is known, silent where it is not."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from edgewright.errors import SpecError
from edgewright.spec import check_tree, parse_pipeline
from edgewright.spec.signatures import signature_of


def faults_of(text: str, folder: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_pipeline(text, folder / "pipeline.yaml", thorough=True)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "uses",
    [
        "airflow.providers.standard.operators.bash.BashOperator",
        "airflow.providers.standard.operators.python.PythonOperator",
        "airflow.providers.standard.operators.python.PythonVirtualenvOperator",
        "airflow.providers.standard.operators.trigger_dagrun.TriggerDagRunOperator",
        "airflow.providers.standard.sensors.filesystem.FileSensor",
        "airflow.providers.standard.sensors.external_task.ExternalTaskSensor",
    ],
)
def test_it_is_what_the_class_itself_says(uses: str) -> None:
    module, _, name = uses.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    own = inspect.signature(inspect.unwrap(cls.__init__)).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {parameter.name for parameter in own if parameter.kind in kinds}
    signature = signature_of(uses, "")
    assert signature.known
    assert names <= signature.names
    assert signature.required == {p.name for p in own if p.kind in kinds and p.default is p.empty}


def test_bases_imports_and_keyword_arguments_are_followed(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(
        "from airflow.sdk import BaseOperator\n"
        "class Mixin: ...\n"
        "class Base(Mixin, BaseOperator):\n"
        "    def __init__(self, *, conn, timeout=3, **kwargs):\n"
        "        old = kwargs.pop('old_name', None)\n"
        "        super().__init__(**kwargs)\n"
    )
    (tmp_path / "mine.py").write_text(
        "from base import Base as Parent\n"
        "class Own(Parent):\n"
        "    def __init__(self, path, *, deep=False, **kwargs): super().__init__(conn='x', **kwargs)\n"
        "class Same(Own): ...\n"
        "class Closed(Own):\n"
        "    def __init__(self, only): ...\n"
    )
    same = signature_of("mine.Same", str(tmp_path))
    assert same.known
    assert same.names >= {"path", "deep", "conn", "timeout", "old_name"}
    assert same.required - {"self"} == {"path"}
    assert signature_of("mine.Closed", str(tmp_path)).names == {"self", "only"}
    text = "dag_id: d\ntasks: [{id: a, uses: mine.Own, with: {pth: x, timeout: 3}}]\n"
    first, second = faults_of(text, tmp_path)
    assert first.endswith("tasks[0].with: path is required; by Own")
    assert "Own takes no 'pth'; it takes: conn, deep, old_name, path, timeout; did you mean \"path\"?" in second


@pytest.mark.parametrize(
    "source",
    [
        "Own = make()\n",
        "import other\nclass Own(other.Base): ...\n",
        "from dataclasses import dataclass\n@dataclass\nclass Own:\n    x: int\n",
        "class Own(Own): ...\n",
        "from nowhere import Base\nclass Own(Base): ...\n",
        "class Own(metaclass=Meta): ...\n",
        "class Own(:\n",
    ],
)
def test_what_nobody_can_know_is_not_checked(source: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    assert not signature_of("mine.Own", str(tmp_path)).known
    text = "dag_id: d\ntasks: [{id: a, uses: mine.Own, with: {anything: x}}]\n"
    assert parse_pipeline(text, tmp_path / "pipeline.yaml", thorough=True).tasks


def test_check_looks_at_them_and_a_parse_does_not(tmp_path: Path) -> None:
    text = (
        "dag_id: d\ntasks: [{id: a, uses: airflow.providers.standard.operators.bash.BashOperator,"
        " with: {bash_comand: x}}]\n"
    )
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    assert parse_pipeline(text, file).tasks
    ((_, faults),) = check_tree([tmp_path])
    assert isinstance(faults, list)
    assert [fault.suggestion for fault in faults] == [None, "bash_command"]
