"""Several pipelines in one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import ConfigError, SpecError
from edgewright.spec import check_tree, load_pipeline, load_pipelines
from edgewright.spec.documents import documents

GOOD = Path(__file__).resolve().parents[1] / "corpus" / "good"


def test_documents_keep_their_lines() -> None:
    text = "# head\n---\na: 1\n--- # two\nb: 2\n---\n"
    assert documents(text) == ["# head\n---\na: 1\n", "\n\n\n--- # two\nb: 2\n"]
    assert documents("a: 1\n") == ["a: 1\n"]
    assert documents("---\na: |\n  ---\n") == ["---\na: |\n  ---\n"]
    assert documents("a: [\n---\nb: 1\n") == ["a: [\n---\nb: 1\n"]


def test_each_document_is_a_pipeline() -> None:
    first, second = load_pipelines(GOOD / "two_documents.yaml")
    assert (first.dag_id, second.dag_id) == ("first", "second")
    assert "---\nEND" in first.tasks[0].config["bash_command"]
    assert second.task("data").position.line == 15
    assert second.text.startswith("---\ndag_id: second\n")
    assert load_pipeline(GOOD / "two_documents.yaml", dag_id="second") == second


def test_who_wants_one_says_which() -> None:
    with pytest.raises(ConfigError, match=r"several pipelines(.|\n)*first, second"):
        load_pipeline(GOOD / "two_documents.yaml")
    with pytest.raises(ConfigError, match="no pipeline third"):
        load_pipeline(GOOD / "two_documents.yaml", dag_id="third")


def test_one_id_in_two_documents_is_a_fault_at_the_second(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("dag_id: a\ntasks: [{id: t}]\n---\ndag_id: a\ntasks: [{id: u}]\n")
    with pytest.raises(SpecError) as caught:
        load_pipelines(file)
    assert [(fault.line, fault.code) for fault in caught.value.faults] == [(3, "duplicate-dag")]
    ((_, faults),) = check_tree([file])
    assert isinstance(faults, list)
