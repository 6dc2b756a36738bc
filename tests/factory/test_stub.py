"""Stubs: Python files that hold a pipeline's text."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import ConfigError, SpecError
from edgewright.factory.stub import BrokenPipeline, load_stub, quoted, render_stub

GOOD = "dag_id: a\ntasks:\n  - {id: t}\n"
NASTY = st.text(alphabet=st.sampled_from(list("ab\"'\\\n\r\0{}#\u2028\u00e4 \f")), max_size=40)


@given(st.one_of(st.text(), NASTY))
def test_every_text_comes_back_as_it_was(text: str):
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # no file holds that
    assert ast.literal_eval(quoted(text)) == text


@given(NASTY, NASTY)
def test_a_stub_is_always_python(name: str, text: str):
    source = render_stub(name, text, "0" * 64, last_good='x"y', fault="f\\")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and len(node.args) == 4]
    assert [ast.literal_eval(argument) for argument in calls[0].args[2:]] == [name, text]


def test_a_plain_document_is_readable_in_the_code_view():
    assert GOOD in render_stub("p/pipeline.yaml", GOOD, "0" * 64)


def test_airflow_looks_into_a_stub():
    source = render_stub("p.yaml", "", "0" * 64).lower()
    assert "airflow" in source
    assert "dag" in source


def load(tmp_path: Path, text: str | None, **more: str) -> dict[str, object]:
    namespace: dict[str, object] = {}
    load_stub(namespace, str(tmp_path / "pipeline.yaml.py"), "p/pipeline.yaml", text, **more)
    return namespace


def test_a_good_stub_makes_a_dag(tmp_path: Path):
    dag = load(tmp_path, GOOD)["dag_0"]
    assert dag.dag_id == "a"  # type: ignore[attr-defined]


def test_a_broken_one_says_so_and_names_the_last_good_version(tmp_path: Path):
    with pytest.raises(SpecError, match="p/pipeline.yaml:3:19: "):
        load(tmp_path, GOOD.replace("id: t", "id: t, uses: trian"))
    with pytest.raises(BrokenPipeline, match="p/pipeline.yaml:3:(.|\n)*the last good version is v1 of noon"):
        load(tmp_path, GOOD.replace("id: t", "id: t, uses: trian"), last_good="v1 of noon")


def test_what_only_the_folder_shows_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="p/pipeline.yaml: duplicate dag_id"):
        load(tmp_path, GOOD, fault="duplicate dag_id 'a': b.yaml has it already")


def test_a_file_that_is_no_text_is_told(tmp_path: Path):
    (tmp_path / "pipeline.yaml").write_bytes(b"dag_id: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(tmp_path, None)
