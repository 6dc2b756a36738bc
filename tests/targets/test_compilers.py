"""Compilers in their own environments, built from the locks that ship: the real ones, on real models."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace
from support.qat import trained_bits

from edgewright.artifacts import ArtifactRef
from edgewright.errors import GateFailed, UserFault
from edgewright.steps.execute import execute
from edgewright.steps.models import load_model, read_document
from edgewright.targets.base import find_target
from edgewright.targets.environments import environment_python

pytestmark = pytest.mark.slow

PREPARED = os.environ.get("EDGEWRIGHT_TARGET_PYTHON_VITIS_AI")

CODE = """
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def fit(data):
    model = make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier((64, 32), max_iter=40, random_state=0))
    return model.fit(data.X, data.y)
"""


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 4)), columns=["a", "b", "c", "d"])
    frame.loc[::17, "c"] = np.nan
    return frame.assign(y=(frame.a - frame.b + 0.3 * random.normal(size=rows) > 0).astype(int))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, ArtifactRef, ArtifactRef]:
    """A place with a dataset and a trained network of it."""
    place = Workplace(tmp_path_factory.mktemp("place"))
    place.model_py(CODE)
    data = place.dataset({"train": table(400, 1), "test": table(100, 2)}, "y")
    return place, data, place.run("train", data=data, entry="model.py:fit").outputs["model"]


Trained = tuple[Workplace, ArtifactRef, ArtifactRef]


def again(place: Workplace, **config: Any) -> str:
    """Return the digest that a second compile of the same gives."""
    request = place.request("quantize", "again", **config)
    request.cache = "off"
    return execute(request, store=place.store).outputs["model"].sha256


def test_openvino(trained: Trained) -> None:
    place, data, model = trained
    gates = {"verified": True, "agreement": ">= 0.9", "sqnr_db": ">= 10", "integer_nodes": "> 0"}
    result = place.run("quantize", model=model, data=data, target="openvino", gates=gates)
    folder = place.store.fetch(result.outputs["model"])
    names = {path.name for path in folder.iterdir()}
    assert {"model.xml", "model.bin", "before.onnx", "after.onnx", "model.json"} <= names
    document = read_document(folder)
    assert document.verified == {"runtime": "OpenVINO on CPU", "part": "test", "rows": 100}
    assert document.libraries["openvino"].startswith("2026.4")
    assert {"latency_us", "latency_256_us", "sqnr_db"} <= set(result.metrics)
    assert again(place, model=model, data=data, target="openvino") == result.outputs["model"].sha256
    with pytest.raises(GateFailed, match="sqnr_db"):
        place.run("quantize", "strict", model=model, data=data, target="openvino", gates={"sqnr_db": ">= 190"})
    for precision in ("fp16", "fp32"):
        floats = place.run(
            "quantize", precision, model=model, data=data, target="openvino", options={"precision": precision}
        )
        assert floats.metrics["agreement"] == 1.0


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_hls(trained: Trained) -> None:
    place, data, model = trained
    gates = {"verified": True, "agreement": ">= 0.97", "sqnr_db": ">= 25"}
    result = place.run("quantize", model=model, data=data, target="hls", options={"clock_ns": 4}, gates=gates)
    folder = place.store.fetch(result.outputs["model"])
    with tarfile.open(folder / "model.tar.gz") as archive:
        names = archive.getnames()
        project = archive.extractfile("project/project.tcl")
        assert project is not None
        text = project.read().decode()
    assert {"project/build_prj.tcl", "project/firmware/myproject.cpp", "project/firmware/parameters.h"} <= set(names)
    assert 'set part "xcvc1902-vsva2197-2MP-e-S"' in text
    assert "set clock_period 4" in text
    document = read_document(folder)
    assert document.verified["runtime"] == "hls4ml's C++ emulation"
    assert document.details["synthesised"] is False
    assert not {"latency_us", "size_ratio"} & set(result.metrics)
    assert again(place, model=model, data=data, target="hls", options={"clock_ns": 4}) == result.outputs["model"].sha256
    coarse = place.run(
        "quantize", "coarse", model=model, data=data, target="hls", options={"precision": "ap_fixed<8,4>"}
    )
    assert coarse.metrics["sqnr_db"] < result.metrics["sqnr_db"] - 10


@pytest.mark.skipif(not PREPARED, reason="needs EDGEWRIGHT_TARGET_PYTHON_VITIS_AI (the index's torch brings CUDA)")
@pytest.mark.parametrize(("style", "zeros"), [("dpu", ["int8 0"]), ("xint8", ["int8 0", "uint8 128"])])
def test_vitis_ai(trained: Trained, style: str, zeros: list[str], caplog: pytest.LogCaptureFixture) -> None:
    place, data, model = trained
    config = {"model": model, "data": data, "target": "vitis-ai", "options": {"style": style}}
    gates = {"verified": True, "agreement": ">= 0.9", "sqnr_db": ">= 15", "integer_nodes": "> 0"}
    with caplog.at_level(logging.DEBUG):
        result = place.run("quantize", **config, gates=gates)
    rows = table(400, 1)
    assert not [value for value in rows.a.head(50) if f"{value:.4f}"[:6] in caplog.text]
    folder = place.store.fetch(result.outputs["model"])
    checks = read_document(folder).verified["checks"]
    assert checks["zero_points"] == zeros
    assert checks["scales"].startswith("powers of two")
    assert checks["second_runtime"]["runtime"] == "onnx.reference"
    assert (folder / "core.onnx").exists()
    assert load_model(folder).scores(rows.head(3)).shape == (3, 2)
    assert again(place, **config) == result.outputs["model"].sha256


def test_tvm_for_aarch64(trained: Trained) -> None:
    place, data, model = trained
    config = {"model": model, "data": data, "target": "tvm-aarch64", "options": {"features": ["+neon"]}}
    result = place.run("quantize", **config)
    folder = place.store.fetch(result.outputs["model"])
    library = (folder / "model.so").read_bytes()
    assert library[:5] == b"\x7fELF\x02"
    assert int.from_bytes(library[18:20], "little") == 183  # EM_AARCH64 of the ELF header
    assert again(place, **config) == result.outputs["model"].sha256
    verified = read_document(folder).verified
    if platform.machine() == "aarch64":
        assert result.metrics["agreement"] == 1
    else:
        assert "no AArch64" in verified["unverified"]
        assert verified["checks"]["twin_of_this_processor"]["max_difference"] < 1e-3
        assert result.metrics["verified"] == 0
        with pytest.raises(GateFailed, match="verified"):
            place.run("quantize", "strict", **config, gates={"verified": True})
        passed = place.run("quantize", "loose", **config, gates={"accuracy_drop": "<= 0"})
        assert passed.gates[0].note == f"not run here: {verified['unverified']}"


def test_litert_runs_a_file_of_the_users(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    place.model_py(CODE.replace("SimpleImputer(), StandardScaler(), ", ""))
    data = place.dataset({"train": table(400, 1).fillna(0), "test": table(100, 2).fillna(0)}, "y")
    model = place.run("train", data=data, entry="model.py:fit").outputs["model"]
    network = load_model(place.store.fetch(model)).estimator.steps[-1][1]  # type: ignore[attr-defined]
    weights, biases = list(network.coefs_), list(network.intercepts_)
    # one sigmoid of a logit is a softmax over nothing and that logit
    weights[-1], biases[-1] = np.hstack([weights[-1] * 0, weights[-1]]), np.concatenate([biases[-1] * 0, biases[-1]])
    arrays = {f"{kind}{n}": a for kind, part in (("w", weights), ("b", biases)) for n, a in enumerate(part)}
    np.savez(tmp_path / "weights.npz", **arrays)
    python = environment_python(find_target("litert"))
    script = Path(__file__).parents[1] / "support" / "tflite.py"
    file = place.code / "model.tflite"
    subprocess.run([python, script, tmp_path / "weights.npz", file], check=True, capture_output=True)
    config = {"model": model, "data": data, "target": "litert", "options": {"file": file.name, "output": "logits"}}
    config["gates"] = {"verified": True, "agreement": "== 1", "sqnr_db": ">= 60"}
    result = place.run("quantize", **config)
    assert read_document(place.store.fetch(result.outputs["model"])).verified["runtime"] == "LiteRT on CPU"
    assert place.run("quantize", "cached", **config).cache.hit
    file.write_bytes(b"other")
    with pytest.raises(UserFault, match="LiteRT cannot load"):
        place.run("quantize", "changed", **config)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_hls_with_other_parameters_compiles_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the environment is the shared one; what is kept for other models is this test's own
    python = environment_python(find_target("hls"))
    monkeypatch.setenv("EDGEWRIGHT_TARGET_PYTHON_HLS", str(python))
    monkeypatch.setenv("EDGEWRIGHT_TARGET_ENVIRONMENTS", str(tmp_path / "kept"))
    place = Workplace(tmp_path)
    place.model_py(CODE.replace("random_state=0", "random_state=SEED").replace("(64, 32)", "(8,)"))
    data = place.dataset({"train": table(400, 1), "test": table(100, 2)}, "y")
    results = []
    for seed in ("0", "1", "1"):
        place.model_py(CODE.replace("random_state=0", f"random_state={seed}").replace("(64, 32)", "(8,)"))
        model = place.run("train", f"model-{len(results)}", data=data, entry="model.py:fit").outputs["model"]
        request = place.request("quantize", f"fpga-{len(results)}", model=model, data=data, target="hls")
        request.cache = "off"
        results.append(execute(request, store=place.store))
        if len(results) == 2:
            # without what was kept, the same must come out
            shutil.rmtree(tmp_path / "kept")
    documents = [read_document(place.store.fetch(result.outputs["model"])) for result in results]
    assert len({document.details["structure"] for document in documents}) == 1
    again = ["g++ did not run" in " ".join(result.notes) for result in results]
    assert again == [False, True, False]
    assert results[0].outputs["model"].sha256 != results[1].outputs["model"].sha256
    assert results[1].outputs["model"].sha256 == results[2].outputs["model"].sha256
    assert all(result.metrics["agreement"] >= 0.97 for result in results)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_hls_is_exact_for_a_model_that_was_trained_for_its_bits(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    random = np.random.default_rng(3)

    def rows(count: int) -> pd.DataFrame:
        frame = pd.DataFrame(np.round(random.normal(size=(count, 4)) * 16) / 16, columns=["a", "b", "c", "d"])
        return frame.assign(y=np.where(frame.a - frame.b > 0.5, 2, np.where(frame.c > 0, 1, 0)))

    train = rows(300)
    (place.code / "net.onnx").write_bytes(trained_bits(train))
    place.model_py(
        "from pathlib import Path\n\ndef fit(data):\n    return (Path(__file__).parent / 'net.onnx').read_bytes()\n"
    )
    data = place.dataset({"train": train, "test": rows(80)}, "y")
    model = place.run("train", data=data, entry="model.py:fit").outputs["model"]
    gates = {"verified": True, "agreement": "== 1", "max_difference": "== 0", "sqnr_db": ">= 200"}
    result = place.run("quantize", model=model, data=data, target="hls", gates=gates)
    document = read_document(place.store.fetch(result.outputs["model"]))
    assert document.verified["checks"] == {"qonnx_executor": {"rows": 16, "exact": True, "max_difference": 0.0}}
