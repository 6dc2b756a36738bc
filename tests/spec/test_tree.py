"""Finding pipelines in folders, and checking all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import ConfigError
from edgewright.spec import Pipeline, check_tree, pipeline_files

GOOD = "dag_id: {}\ntasks: [{{id: a}}]\n"


def put(root: Path, name: str, text: str) -> None:
    place = root / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in pipeline_files([root])]


def test_what_is_a_pipeline(tmp_path: Path) -> None:
    put(tmp_path, "b/pipeline.yaml", GOOD.format("b"))
    put(tmp_path, "a/other.yml", GOOD.format("a"))
    put(tmp_path, "misspelt.yaml", "dagid: x\ntasks: [{id: a}]\n")
    put(tmp_path, "empty/pipeline.yaml", "")
    for name in ("values.yaml", "defaults.yaml", ".hidden/pipeline.yaml", "__pycache__/pipeline.yaml", "notes.txt"):
        put(tmp_path, name, "replicas: 3\n" if name == "values.yaml" else GOOD.format("x"))
    assert names(tmp_path) == ["a/other.yml", "b/pipeline.yaml", "empty/pipeline.yaml", "misspelt.yaml"]


def test_airflowignore(tmp_path: Path) -> None:
    for name in ("a.yaml", "old/b.yaml", "old/keep.yaml", "sub/c.yaml", "sub/skip/d.yaml"):
        put(tmp_path, name, GOOD.format("x"))
    put(tmp_path, ".airflowignore", "# a comment\nold/*\n!old/keep.yaml\n")
    put(tmp_path, "sub/.airflowignore", "skip/\n")
    assert names(tmp_path) == ["a.yaml", "old/keep.yaml", "sub/c.yaml"]


def test_a_named_file_is_always_looked_at_and_a_missing_one_is_said(tmp_path: Path) -> None:
    put(tmp_path, "values.yaml", "replicas: 3\n")
    ((path, faults),) = check_tree([tmp_path / "values.yaml"])
    assert path.name == "values.yaml"
    assert isinstance(faults, list)
    with pytest.raises(ConfigError, match="no such file or folder"):
        check_tree([tmp_path / "nothing"])


def test_one_bad_file_hides_no_other(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", "dag_id: [\n")
    put(tmp_path, "b.yaml", GOOD.format("b"))
    (tmp_path / "c.yaml").write_bytes(b"dag_id: \xff\n")
    found = {path.name: result for path, result in check_tree([tmp_path])}
    assert isinstance(found["b.yaml"], Pipeline)
    assert [fault.code for fault in found["a.yaml"]] == ["yaml-syntax"]  # type: ignore[union-attr]
    assert [fault.code for fault in found["c.yaml"]] == ["unreadable"]  # type: ignore[union-attr]


def test_two_files_cannot_have_one_dag_id(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", GOOD.format("same"))
    put(tmp_path, "b.yaml", "# second\n" + GOOD.format("same"))
    (_, first), (_, second) = check_tree([tmp_path, tmp_path / "a.yaml"])
    assert isinstance(first, Pipeline)
    assert str(second[0]) == (  # type: ignore[index]
        f"{tmp_path}/b.yaml:2:1: dag_id: duplicate dag_id 'same'; {tmp_path}/a.yaml has it already"
    )


@pytest.mark.parametrize(
    "include", ["shared/common.yaml", "[shared/common.yaml]", '\n  - "shared/common.yaml"  # theirs']
)
def test_what_others_include_is_no_pipeline(tmp_path: Path, include: str) -> None:
    put(tmp_path, "shared/common.yaml", "include: more.yaml\ntasks: [{id: first}]\n")
    put(tmp_path, "shared/more.yaml", "tasks: [{id: zero}]\n")
    put(tmp_path, "lost.yaml", "tasks: [{id: a}]\n")
    put(tmp_path, "a.yaml", f"dag_id: a\ninclude: {include}\ntasks: [{{id: last}}]\n")
    found = {path.name: result for path, result in check_tree([tmp_path])}
    assert sorted(found) == ["a.yaml", "lost.yaml"]
    assert [task.id for task in found["a.yaml"].tasks] == ["zero", "first", "last"]  # type: ignore[union-attr]
    assert found["lost.yaml"][0].message.startswith("dag_id is required")  # type: ignore[index]
