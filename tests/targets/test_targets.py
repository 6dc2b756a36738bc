"""Targets: found by name, brought by other distributions, imported only when they run; graphs in one form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewright.errors import ConfigError, UserFault
from edgewright.targets import Job, compile_for, find_target, graph, known_targets

PLUGIN = """
from edgewright.targets import Compiled, Target

TARGET = Target("upside-down", "bytes in reverse", "upside_down", suffix=".rev", requires=("{requires}",), runtime=None)

def compile_model(job):
    return Compiled(job.model[::-1], details={{"length": len(job.model)}})
"""


def model(*, weights: bool = True) -> bytes:
    """A graph that multiplies ``X [rows, 4]`` by a constant, with everything that a converter may leave behind."""
    nodes = [helper.make_node("MatMul", ["X", "w"], ["probabilities"])] if weights else [
        helper.make_node("Relu", ["X"], ["probabilities"])
    ]  # fmt: skip
    constants = [helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.eye(4).ravel() * 0.5)] if weights else []
    shape = [None, 4]
    body = helper.make_graph(
        nodes,
        "5f3a-random",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)],
        constants,
        doc_string="made at 12:00",
    )
    opsets = [helper.make_opsetid("ai.onnx.ml", 1), helper.make_opsetid("", 17), helper.make_opsetid("", 17)]
    return helper.make_model(body, opset_imports=opsets, ir_version=10).SerializeToString()  # type: ignore[no-any-return]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with a target of its own, installed as far as Python can tell."""
    info = tmp_path / "upside_down-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: upside-down\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgewright.targets]\nupside-down = upside_down:TARGET\n")
    (tmp_path / "upside_down.py").write_text(PLUGIN.format(requires="onnx"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("upside_down", None)


def test_our_targets_are_known() -> None:
    assert {"onnx", "onnx-int8"} <= set(known_targets())


def test_a_typo_is_answered_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match='no such target: onx; did you mean "onnx"'):
        find_target("onx")


def test_another_distribution_brings_a_target(plugin: Path, tmp_path: Path) -> None:
    target = find_target("upside-down")
    compiled = compile_for(target, Job(b"abc", {}, {}, tmp_path))
    assert compiled.data == b"cba"


def test_a_target_whose_libraries_are_absent_says_so(plugin: Path) -> None:
    (plugin / "upside_down.py").write_text(PLUGIN.format(requires="no-such-compiler"))
    with pytest.raises(ConfigError, match="the target upside-down needs no-such-compiler"):
        find_target("upside-down")


def test_a_target_that_cannot_be_imported_says_so(plugin: Path) -> None:
    (plugin / "upside_down.py").write_text("import absent_library\n")
    with pytest.raises(ConfigError, match="the target upside-down cannot be loaded: No module named"):
        find_target("onx")


def test_describing_targets_imports_no_compiler() -> None:
    code = (
        "import sys, edgewright.targets as t; t.find_target('onnx-int8'); "
        "print([m for m in ('onnx', 'onnxruntime', 'numpy', 'skl2onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_canonical_form_has_sorted_opsets_once_and_no_times_or_names() -> None:
    parsed = onnx.load_from_string(graph.canonical_bytes(onnx.load_from_string(model())))
    assert [(entry.domain, entry.version) for entry in parsed.opset_import] == [("", 17), ("ai.onnx.ml", 1)]
    assert parsed.ir_version <= 10
    assert (parsed.graph.name, parsed.graph.doc_string) == ("model", "")


def test_bytes_that_are_no_model_are_the_users_fault() -> None:
    with pytest.raises(UserFault, match="not a valid ONNX model"):
        graph.parse(b"hello")


def test_pruning_keeps_what_the_outputs_need() -> None:
    parsed = onnx.load_from_string(model())
    parsed.graph.node.append(helper.make_node("Relu", ["probabilities"], ["unused"]))
    parsed.graph.initializer.append(helper.make_tensor("lonely", TensorProto.FLOAT, [1], [1.0]))
    graph.prune(parsed)
    assert [node.op_type for node in parsed.graph.node] == ["MatMul"]
    assert [value.name for value in parsed.graph.initializer] == ["w"]


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_int8_counts_what_it_changed(tmp_path: Path, method: str) -> None:
    rows = {"X": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)}
    data = graph.canonical_bytes(onnx.load_from_string(model()))
    compiled = compile_for(find_target("onnx-int8"), Job(data, rows, {"method": method}, tmp_path))
    assert compiled.details["integer_nodes"] > 0
    assert compiled.details["method"] == method


def test_int8_refuses_a_graph_without_weights(tmp_path: Path) -> None:
    data = graph.canonical_bytes(onnx.load_from_string(model(weights=False)))
    with pytest.raises(UserFault, match="INT8 cannot help this model"):
        compile_for(find_target("onnx-int8"), Job(data, {}, {}, tmp_path))


def test_missing_values_that_reach_the_arithmetic_are_said(tmp_path: Path) -> None:
    rows = {"X": np.full((20, 4), np.nan, dtype=np.float32)}
    data = graph.canonical_bytes(onnx.load_from_string(model()))
    with pytest.raises(UserFault, match="missing values") as caught:
        compile_for(find_target("onnx-int8"), Job(data, rows, {"method": "static"}, tmp_path))
    assert "SimpleImputer" in str(caught.value)


def test_what_only_its_makers_image_compiles_is_known_before_it_runs() -> None:
    from edgewright.spec.steps.target_options import FOREIGN

    assert {name for name, target in known_targets().items() if target.foreign} == set(FOREIGN)
