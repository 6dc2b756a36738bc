"""Damaged documents: never a traceback, and a misspelt key or a value of another type is never taken silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import Fault, SpecError
from edgewright.spec import parse_pipelines, render_faults
from edgewright.spec.faults import Faults, path_text
from edgewright.spec.nodes import read

GOOD = sorted((Path(__file__).resolve().parents[1] / "corpus" / "good").glob("*.yaml"))
#: Mappings whose keys are the author's own.
FREE_NAMES = {
    "params", "templates", "profiles", "args", "inputs", "personal", "headers", "space", "env", "owner_links",
    "access_control", "executor_config", "resources",
    "selector", "values",
    "types", "columns", "tags", "node_selector", "secrets", "default", "properties", "examples", "$const",
    "environments", "conf",
}  # fmt: skip


def _uses_a_step(document: dict[str, Any], path: tuple[Any, ...]) -> bool:
    holder = document[path[0]][path[1]]
    return isinstance(holder, dict) and "." not in str(holder.get("uses") or ".")


def _is_free(document: dict[str, Any], path: tuple[Any, ...]) -> bool:
    """Whether a key is the author's own: a name, or an argument of something that is not known here."""
    if (
        path[-2:-1]
        and path[-2] in FREE_NAMES
        and not (path[:1] == ("profiles",) and path[-2] == "resources" and "/" not in path[-1])
    ):
        return True
    if FREE_NAMES & {"args", "env", "default", "$const", "properties"} & set(path[:-1]):
        return True
    if path[0] == "schedule" and "with" in path[:-1]:
        return True
    if (path[0] == "triggers" or "registry" in path) and "tag" in path[:-1]:
        return True  # names of tags
    if "extra" in path[:-1] or (path[0] == "notify" and "with" in path[:-1]):
        return True
    if "for_each" in path[:-2] and path[-1] == "word":
        return True  # an item's part that no argument takes
    return path[0] in ("tasks", "templates") and "with" in path[:-1] and not _uses_a_step(document, path)


def _parse(file: Path) -> tuple[str, dict[str, Any], Faults]:
    text = file.read_text(encoding="utf-8").removeprefix("\ufeff")
    faults = Faults(file.name)
    return text, read(text, faults), faults


def _faults_of(text: str, file: Path) -> list[Fault]:
    try:
        parse_pipelines(text, file, thorough=True)
    except SpecError as error:
        return error.faults
    return []


def _replaced(text: str, node: Any, new: str) -> str:
    return text[: node.start_mark.index] + new + text[node.end_mark.index :]


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_a_misspelt_key_is_a_fault(file: Path) -> None:
    text, document, faults = _parse(file)
    for path, node in faults.key_positions.items():
        if _is_free(document, path) or "<<" in text:
            continue
        key = str(path[-1])
        misspelt = f"{key[:-1]}x{key[-1]}" if len(key) > 1 else f"{key}x"
        assert _faults_of(_replaced(text, node, misspelt), file), f"{path_text(path)} took {misspelt}"


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_a_value_of_another_type_is_a_fault(file: Path) -> None:
    text, document, faults = _parse(file)
    for path, node in faults.positions.items():
        is_leaf = isinstance(node.value, str)
        if not is_leaf or not path or _is_free(document, path) or "<<" in text or isinstance(path[-1], int):
            continue
        if path[-1] in ("default", "const", "$const") or (path[-2:-1] and path[-2] in ("enum", "default", "examples")):
            continue
        if node.start_mark.index == node.end_mark.index:
            continue  # nothing was written there
        changed = _replaced(text, node, "{zzz: [[]]}")
        assert _faults_of(changed, file), f"{path_text(path)} took a mapping"


def _taken_or_refused(text: str, file: Path) -> None:
    faults = _faults_of(text, file)
    assert all(fault.line >= 1 and fault.column >= 1 and fault.message for fault in faults)
    assert bool(render_faults(faults, text)) == bool(faults)


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_a_dropped_line_never_ends_in_a_traceback(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    for number in range(len(lines)):
        _taken_or_refused("".join(lines[:number] + lines[number + 1 :]), file)


SCALARS = ["1", "-1.5", "text", "true", "null", "[]", "{}", "[1, a]", "{a: b}", "{$x: a}", '{$t: "{{ params.a }}"}',
           "no", "0777", "2026-01-01", '"',
           "*a", "&a", "!!set", "%", "@", "`", "1e400", "'{{'", "\t", "\u2028"]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_random_damage_never_ends_in_a_traceback(data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(GOOD))
    text = file.read_text(encoding="utf-8")
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        new = data.draw(st.one_of(st.sampled_from(SCALARS), st.text(max_size=6)))
        text = text[:start] + new + text[end:]
    _taken_or_refused(text, file)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_task_keys = st.sampled_from([
    "id", "uses", "needs", "extends", "with", "run", "profile", "retries", "cache", "pool", "tasks", "for_each",
    "search", "best_of", "setup", "teardown", "outlets",
])  # fmt: skip
_values = _json | st.sampled_from(["ingest", "train", "a", "b", ["a"], {"$x": "a"}, {"source": "data.csv"}, "local"])
_tasks = st.lists(st.dictionaries(_task_keys, _values, max_size=5) | _json, max_size=4)
_documents = st.fixed_dictionaries(
    {},
    optional={
        "dag_id": _values, "schedule": _values, "params": _values, "templates": st.dictionaries(st.just("a"), _values),
        "tasks": _tasks | _json, "triggers": _values, "profiles": _values, "start_date": _values, "tags": _values,
        "notify": _values,
    },
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(document=_documents)
def test_any_document_is_taken_or_refused(document: dict[str, Any]) -> None:
    import yaml

    _taken_or_refused(yaml.safe_dump(document, allow_unicode=True), GOOD[0])
