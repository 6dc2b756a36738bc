"""An xmodel by AMD's container, with programs in its place that take and leave the same files."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, EdgewrightError, GateFailed, UserFault
from edgewright.places import foreign
from edgewright.places.choose import refusal
from edgewright.places.pods import build_pod
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import StepRequest, StepResult
from edgewright.steps.execute import execute
from edgewright.steps.foreign import CODE, collecting
from edgewright.steps.foreign_stage import stage
from edgewright.steps.models import load_model, read_document
from edgewright.targets.xmodel import read_xmodel

HERE = Path(__file__).resolve().parents[1] / "support" / "vitis_ai"
FINGERPRINT = "0x101000056010407"
PROFILE: dict[str, Any] = {
    "on": "kubernetes", "image": "xilinx/vitis-ai-pytorch-cpu:latest", "foreign": True,
    "runner": "edgewright/step-cpu:0.1.0", "resources": {"cpu": 4, "memory": "16Gi"},
}  # fmt: skip
CODE_OF_USER = """
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def fit(data):
    model = make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=30, random_state=0))
    return model.fit(data.X, data.y)
"""

spec = importlib.util.spec_from_file_location("wire", HERE / "wire.py")
assert spec is not None
assert spec.loader is not None
wire: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wire)


def _table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 4)), columns=["a", "b", "c", "d"])
    return frame.assign(y=np.where(frame.a - frame.b > 0.5, 2, np.where(frame.c > 0, 1, 0)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, ArtifactRef, ArtifactRef]:
    place = Workplace(tmp_path_factory.mktemp("place"))
    place.model_py(CODE_OF_USER)
    data = place.dataset({"train": _table(300, 1), "test": _table(80, 2)}, "y")
    return place, data, place.run("train", data=data, entry="model.py:fit").outputs["model"]


Trained = tuple[Workplace, ArtifactRef, ArtifactRef]


def _request(trained: Trained, arch: dict[str, Any] | str | None = None, **config: Any) -> StepRequest:
    place, data, model = trained
    found = {"fingerprint": FINGERPRINT} if arch is None else arch
    (place.code / "arch.json").write_text(found if isinstance(found, str) else json.dumps(found))
    return place.request("quantize", model=model, data=data, target="vitis-ai-xmodel",
                         **{"options": {"arch": "arch.json"}, **config})  # fmt: skip


def _environ(request: StepRequest, folder: Path, wrong: str = "") -> dict[str, str]:
    """The variables that the pod has, and programs and libraries of the stand-in's image."""
    pod = build_pod(Profile.model_validate(PROFILE), request)
    given = {
        one["name"]: one["value"].replace(foreign.SHARED, str(folder)) for one in pod["spec"]["containers"][0]["env"]
    }
    return {
        **given, "PATH": f"{HERE / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin", "VAI_FAKE": wrong,
        "PYTHONPATH": f"{HERE}:{HERE / 'numpy_torch'}", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def _compile(request: StepRequest, folder: Path, wrong: str = "") -> str:
    """Stage here, and run the vendor's command as its container does; return what it printed."""
    folder.mkdir()
    stage(request, folder)
    return _again(request, folder, wrong)


def _again(request: StepRequest, folder: Path, wrong: str) -> str:
    for left in ("quantize_result", "compiled"):
        shutil.rmtree(folder / "work" / left, ignore_errors=True)
    shutil.rmtree(folder / "output")
    (folder / "output").mkdir()
    command = [part.replace(foreign.SHARED, str(folder)) for part in foreign.command(request)]
    done = subprocess.run(command, cwd=folder / "work", env=_environ(request, folder, wrong), timeout=240, check=False,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    (folder / CODE).write_text(f"{done.returncode}\n")
    return done.stdout


def _collect(request: StepRequest, folder: Path) -> StepResult:
    return execute(collecting(request, folder))


def test_an_xmodel_is_compiled_checked_and_never_called_verified(trained: Trained, tmp_path: Path) -> None:
    request = _request(trained, gates={"accuracy_drop": "<= 0.01"})
    text = _compile(request, tmp_path / "shared")
    result = _collect(request, tmp_path / "shared")
    assert "Target architecture" in text
    folder = trained[0].store.fetch(result.outputs["model"])
    assert {"model.xmodel", "before.onnx", "after.onnx", "model.json"} <= {path.name for path in folder.iterdir()}
    document = read_document(folder)
    assert (document.format, document.target) == ("xmodel", "vitis-ai-xmodel")
    assert document.verified["unverified"] == "an xmodel runs on the DPU of its board alone"
    simulated = document.verified["checks"]["quantizer_simulation"]
    assert simulated["rows"] == 80
    assert simulated["agreement"] > 0.9
    assert 20 < simulated["sqnr_db"] < 60
    assert document.details["fingerprint"] == FINGERPRINT
    assert document.details["dpu"] == "DPUCZDX8G_ISA1_B4096"
    assert document.libraries["pytorch_nndct"] == "3.5.0-stand-in"
    assert result.metrics["verified"] == 0
    assert "accuracy" not in result.metrics
    assert result.gates[0].note.startswith("not run here: an xmodel runs")
    assert any("its size was measured, its quality was not" in note for note in result.notes)
    assert result.cache.key is None
    assert _collect(request, tmp_path / "shared").outputs["model"].sha256 == result.outputs["model"].sha256
    with pytest.raises(UserFault, match="format xmodel does not load"):
        load_model(folder)


@pytest.mark.slow
def test_a_pod_does_the_same_and_its_gate_demands_a_run(trained: Trained, tmp_path: Path) -> None:
    request = _request(trained, {"target": "DPUCZDX8G_ISA1_B4096"}, gates={"verified": True})
    pod = build_pod(Profile.model_validate(PROFILE), request)["spec"]
    assert [one["name"] for one in (*pod["initContainers"], *pod["containers"])] == ["stage", "step", "collect"]
    assert pod["containers"][0]["command"][4:] == ["sh", "/edgewright/shared/work/run.sh"]
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "request.json").write_text(request.model_dump_json())
    module = [sys.executable, "-m", "edgewright.steps.foreign"]
    subprocess.run([*module, "stage", folder / "request.json", folder], check=True, timeout=240)
    collector = subprocess.Popen([*module, "collect", folder / "request.json", folder], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    wrapped = [part.replace(foreign.SHARED, str(folder)) for part in pod["containers"][0]["command"]]
    subprocess.run(wrapped, cwd=folder / "work", env=_environ(request, folder), check=True, timeout=240)
    text = collector.communicate(timeout=240)[0]
    assert collector.returncode != 0
    assert "verified" in text
    found = trained[0].store.read_json(f"{request.identity.key}/result.json")
    assert found["error"]["type"] == GateFailed.__name__
    assert found["outputs"]["model"]["meta"]["verified"] is False


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("quantizer", r"vai_q_pytorch \(calibration\) ended with 1: .*unsupported operators: aten::frobnicate"),
        ("nothing exported", r"vai_q_pytorch \(export\) ended with 1: .*0 files \*_int.xmodel"),
        ("batch", r"exported Network__input_0 \[4, 64\], and the compiler for the DPU takes batches of 1"),
        ("compiler", r"vai_c_xir ended with 1: .*XCOM_OP_UNSUPPORTED"),
        ("no xmodel", r"vai_c_xir ended with 1: .*wrote no model.xmodel"),
        (
            "fingerprint",
            r"fingerprint 0x101000056010406 \(DPUCZDX8G_ISA1_B4096\), and arch.json says 0x101000056010407",
        ),
        ("cpu", "nothing of this model runs on the DPU: the compiler put all of it on USER, CPU"),
    ],
)
def test_what_goes_wrong_is_said(
    trained: Trained, prepared: tuple[StepRequest, Path], tmp_path: Path, wrong: str, says: str
) -> None:
    request, folder = prepared
    text = _again(request, folder, wrong)
    assert "0.654321" not in text
    with pytest.raises(UserFault, match=says) as caught:
        _collect(request, folder)
    assert "0.654321" not in str(caught.value)


@pytest.fixture(scope="module")
def prepared(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[StepRequest, Path]:
    request, folder = _request(trained), tmp_path_factory.mktemp("prepared")
    stage(request, folder)
    return request, folder


def test_an_image_without_the_tools_is_said(prepared: tuple[StepRequest, Path]) -> None:
    request, folder = prepared
    shutil.rmtree(folder / "output")
    (folder / "output").mkdir()
    (folder / CODE).write_text("127\n")
    with pytest.raises(UserFault, match=r"ended with 127 before it began(?s:.*)options.conda"):
        _collect(request, folder)


def test_another_models_output_is_not_taken(prepared: tuple[StepRequest, Path]) -> None:
    request, folder = prepared
    _again(request, folder, "")
    text = (folder / "work" / "network.json").read_text()
    (folder / "work" / "network.json").write_text(text.replace('"model": "', '"model": "0'))
    try:
        with pytest.raises(EdgewrightError, match="compiled another model"):
            _collect(request, folder)
    finally:
        (folder / "work" / "network.json").write_text(text)


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("{", "arch.json is no JSON"),
        ({}, "arch.json names no DPU"),
        ({"fingerprint": "zcu102"}, "'zcu102' is no fingerprint"),
    ],
)
def test_a_wrong_arch_is_said_before_the_container_starts(
    trained: Trained, tmp_path: Path, arch: dict[str, Any] | str, says: str
) -> None:
    with pytest.raises(UserFault, match=says):
        stage(_request(trained, arch), tmp_path)


def test_a_missing_arch_is_said_before_the_container_starts(trained: Trained, tmp_path: Path) -> None:
    request = _request(trained, options={"arch": "absent.json"})
    with pytest.raises(UserFault, match=r"no such file: absent\.json"):
        stage(request, tmp_path)


def test_an_xmodel_for_another_dpu_by_name_is_refused(trained: Trained, prepared: tuple[StepRequest, Path]) -> None:
    _, folder = prepared
    request = _request(trained, {"target": "DPUCVDX8G_ISA3_C32B6"})
    _again(request, folder, "")
    with pytest.raises(UserFault, match="compiled for DPUCZDX8G_ISA1_B4096, and arch.json says DPUCVDX8G_ISA3_C32B6"):
        _collect(request, folder)


def test_the_wrong_place_is_refused(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="vitis-ai-xmodel is compiled in its maker's image"):
        execute(_request(trained))
    profile = Profile.model_validate(PROFILE)
    other = trained[0].request("quantize", model=trained[2], data=trained[1], target="onnx-int8")
    assert "compiles for a target of quantize that only such an image compiles" in str(refusal(profile, other))


def test_the_program_in_the_container_is_python_3_8(trained: Trained) -> None:
    source = Path(foreign.__file__).parents[1] / "targets" / "vitis_ai_container.py"
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name and name.startswith("edgewright")]


def test_bytes_that_are_no_xmodel() -> None:
    for data in (b"", b"/usr/share/vitis_ai_library/models/x.xmodel", b"\x0a\x02ab"):
        with pytest.raises(UserFault, match="this is no xmodel"):
            read_xmodel(data)
    found = read_xmodel(wire.compiled(0x603000B56011861, "DPUCVDX8G_ISA3_C32B6"))
    assert (found.fingerprints, found.dpus) == ((0x603000B56011861,), ("DPUCVDX8G_ISA3_C32B6",))
    assert (found.devices, found.inputs) == ({"USER": 1, "DPU": 1}, {"Network__input_0": (1, 64)})


@pytest.mark.skipif(
    not os.environ.get("EDGEWRIGHT_TEST_XMODELS"),
    reason="no EDGEWRIGHT_TEST_XMODELS: a folder with xmodels by AMD's compiler",
)
def test_real_xmodels_are_read() -> None:
    paths = sorted(Path(os.environ["EDGEWRIGHT_TEST_XMODELS"]).glob("*.xmodel"))
    assert paths
    for path in paths:
        found = read_xmodel(path.read_bytes())
        assert found.devices["DPU"] >= 1, path
        assert len(found.fingerprints) == len(found.dpus) == 1, path
        assert all(shape[0] == 1 for shape in found.inputs.values()), path
