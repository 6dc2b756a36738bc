"""What each edge target makes of one network, and what Edgewright adds to the tool called by hand.

    python bench/edge.py [--targets onnx-int8,openvino,...] [--rounds 3] [--json]

The network is scikit-learn's MLP (64-128-64-10) on its digits (1,347 rows to train, 450 to measure). For each target:
size, accuracy, signal to quantization noise, times of a call, and the seconds to compile by Edgewright and by a script
that calls the tool alone, in the same environment, each a process of its own. Aim: at most 5 % plus 2 s more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # support: datasets and requests as the tests make them

OPTIONS: dict[str, dict[str, Any]] = {"hls": {"strategy": "resource", "reuse_factor": 8, "io": "stream"}}
DEFAULT = ("onnx", "onnx-fp16", "onnx-int8", "tensorrt", "openvino", "hls", "tvm-aarch64")
CODE = """
import warnings
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def fit(data):
    warnings.simplefilter("ignore")
    return make_pipeline(StandardScaler(), MLPClassifier((128, 64), max_iter=60, random_state=0)).fit(data.X, data.y)
"""
#: The same tools without us; each gets FOLDER with model.onnx and rows.npz, and writes what it makes there.
BY_HAND = {
    "onnx-fp16": """
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
onnx.save(convert_float_to_float16(onnx.load("model.onnx"), keep_io_types=True), "out.onnx")
""",
    "onnx-int8": """
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
class Rows(CalibrationDataReader):
    def __init__(self): self.it = iter([{name: rows[i:i + 64]} for i in range(0, len(rows), 64)])
    def get_next(self): return next(self.it, None)
quantize_static("model.onnx", "out.onnx", Rows(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)
""",
    "tensorrt": """
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
class Rows(CalibrationDataReader):
    def __init__(self): self.it = iter([{name: rows[i:i + 64]} for i in range(0, len(rows), 64)])
    def get_next(self): return next(self.it, None)
quantize_static("model.onnx", "out.onnx", Rows(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False})
""",
    "openvino": """
import nncf, openvino
model = openvino.Core().read_model("model.onnx")
data = nncf.Dataset([rows[i:i + 1] for i in range(len(rows))])
openvino.save_model(nncf.quantize(model, data, subset_size=len(rows)), "out.xml")
""",
    "vitis-ai": """
from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import ModelQuantizer, PowerOfTwoMethod, QuantFormat, QuantizationConfig, QuantType
from quark.onnx.quantization.config import Config
class Rows(CalibrationDataReader):
    def __init__(self): self.it = iter([{name: rows[i:i + 32]} for i in range(0, len(rows), 32)])
    def get_next(self): return next(self.it, None)
config = QuantizationConfig(calibrate_method=PowerOfTwoMethod.MinMSE, quant_format=QuantFormat.QDQ,
    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, enable_npu_cnn=True,
    extra_options={"ActivationSymmetric": True})
ModelQuantizer(Config(global_quant_config=config)).quantize_model("model.onnx", "out.onnx", Rows())
""",
    "hls": """
import hls4ml, onnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
from qonnx.util.cleanup import cleanup_model
model = onnx.load("model.onnx")
for value in (*model.graph.input, *model.graph.output):
    value.type.tensor_type.shape.dim[0].dim_value = 1
for tensor in model.graph.initializer:
    if len(tensor.dims) == 2 and tensor.dims[0] == 1: del tensor.dims[0]
model = cleanup_model(cleanup_model(ModelWrapper(model)).transform(GemmToMatMul()))
config = hls4ml.utils.config_from_onnx_model(model, granularity="name", backend="Vitis",
    default_precision="ap_fixed<16,6>", default_reuse_factor=8)
config["Model"]["Strategy"] = "Resource"
hls4ml.converters.convert_from_onnx_model(model, output_dir="project", backend="Vitis", hls_config=config,
    part="xcvc1902-vsva2197-2MP-e-S", clock_period=5, io_type="io_stream").compile()
""",
    "tvm-aarch64": """
import onnx, subprocess, sys, tvm
from tvm.relax.frontend.onnx import from_onnx
model = onnx.load("model.onnx")
for value in (*model.graph.input, *model.graph.output):
    value.type.tensor_type.shape.dim[0].dim_value = 1
def link(output, objects, options=None, **_):
    subprocess.run([sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu", "-shared", "-fPIC", "-o",
                    output, *objects], check=True)
link.output_format = "so"
target = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]})
tvm.compile(from_onnx(model, keep_params_in_input=False), target=target).export_library("out.so", fcompile=link)
""",
}
#: By hand, what we call in the same process is a process of its own, too; so is ours.
OURS = """
import pathlib, sys
from edgewright.targets import Job, compile_for, find_target
model = pathlib.Path("model.onnx").read_bytes()
compiled = compile_for(find_target(sys.argv[1]), Job(model, {name: rows}, {}, pathlib.Path(".")))
pathlib.Path("out.onnx").write_bytes(compiled.data)
"""
#: Without a GPU: the portable model that an engine is built of.
OURS_PORTABLE = """
import pathlib
from edgewright.steps.compiling_gpu import portable_core
from edgewright.targets import Job
model = pathlib.Path("model.onnx").read_bytes()
pathlib.Path("out.onnx").write_bytes(portable_core(Job(model, {name: rows}, {}, pathlib.Path("."))).data)
"""
_ROWS = 'import numpy as np\nwith np.load("rows.npz") as a:\n    (name,) = a.files\n    rows = a[name]\n'


def digits() -> dict[str, pd.DataFrame]:
    """Return the parts of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    frame = pd.DataFrame(found.data, columns=[f"p{n}" for n in range(64)]).assign(digit=found.target)
    frame = frame.sample(frac=1, random_state=0)
    return {"train": frame[:1347], "test": frame[1347:]}


def seconds_of(python: Path, code: str, folder: Path, *arguments: str) -> float:
    """Return the seconds that a process takes which runs some code in a folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    start = time.perf_counter()
    done = subprocess.run(
        [str(python), "-c", _ROWS + code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"by hand: {done.stderr[-2000:]}")
    return seconds


def compile_times(target: Any, parts: Any, model: bytes, rows: Any, rounds: int) -> dict[str, float]:
    """Return the median seconds of our compile and of the tool by hand, in turn.

    Of a target that uses again what it compiled for other parameters, also the seconds of that.
    """
    from edgewright.spec.steps.target_options import OPTIONS as MODELS
    from edgewright.targets import Job
    from edgewright.targets.environments import environment_python, reuse_folder
    from edgewright.targets.isolated import compile_isolated

    if target.name not in BY_HAND:
        return {}
    options = MODELS[target.name].model_validate(OPTIONS.get(target.name, {})).model_dump(mode="json")
    ours, hand, again = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            core = target.core
            arrays = {parts.source: rows[1]} if core else {"X": rows[0]}
            for folder in (Path(one), Path(two)):
                (folder / "model.onnx").write_bytes(parts.core if core else model)
                np.savez(folder / "rows.npz", **arrays)
            if core and not target.gpu:
                python = environment_python(target)
                shutil.rmtree(reuse_folder(target), ignore_errors=True)
                start = time.perf_counter()
                compile_isolated(target, Job(parts.core, arrays, options, Path(one)), None)
                ours.append(time.perf_counter() - start)
                if target.name == "hls":
                    again.append(_again(target, Job(other_parameters(parts.core), arrays, options, Path(two))))
            else:
                python = Path(sys.executable)
                script = OURS_PORTABLE if target.gpu else OURS
                ours.append(seconds_of(python, script, Path(one), target.name))
            hand.append(seconds_of(python, BY_HAND[target.name], Path(two)))
    found = {"compile_seconds": statistics.median(ours), "by_hand_seconds": statistics.median(hand)}
    return found | ({"again_seconds": statistics.median(again)} if again else {})


def _again(target: Any, job: Any) -> float:
    from edgewright.targets.isolated import compile_isolated

    start = time.perf_counter()
    compile_isolated(target, job, None)
    return time.perf_counter() - start


def other_parameters(model: bytes) -> bytes:
    """Return a model of the same structure with other weights."""
    import onnx
    from onnx import numpy_helper

    found = onnx.load_from_string(model)
    for tensor in found.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array * np.float32(0.9), tensor.name))
    return bytes(found.SerializeToString())


def measure(names: list[str], rounds: int) -> list[dict[str, Any]]:
    """Return one row of figures a target."""
    from support.models import Workplace

    from edgewright.steps.compiling import _run
    from edgewright.steps.models import read_document
    from edgewright.targets import find_target, graph
    from edgewright.targets.partition import split

    with tempfile.TemporaryDirectory(prefix="edgewright-bench-") as root:
        place = Workplace(Path(root))
        place.model_py(CODE)
        frames = digits()
        data = place.dataset(frames, "digit")
        model = place.run("train", data=data, entry="model.py:fit").outputs["model"]
        exported = place.run("quantize", model=model, data=data, target="onnx").outputs["model"]
        source = (place.store.fetch(exported) / "model.onnx").read_bytes()
        inputs = frames["train"].iloc[np.linspace(0, 1346, 256).round().astype(int), :64].to_numpy(np.float32)
        parts = split(graph.parse(source), {"X": inputs[:2]})
        rows = (inputs, _run(parts.before, {"X": inputs}, parts.source))
        found = []
        for name in names:
            options = OPTIONS.get(name, {})
            start = time.perf_counter()
            result = place.run("quantize", name, model=model, data=data, target=name, options=options)
            took = time.perf_counter() - start
            times = compile_times(find_target(name), parts, source, rows, rounds)
            row = {"target": name, "step_seconds": took, "float_us": result.metrics.get("float_latency_us")}
            wanted = ("size_bytes", "size_ratio", "accuracy", "sqnr_db", "latency_us", "latency_256_us", "verified")
            row |= {key: result.metrics.get(key) for key in wanted}
            checks = read_document(place.store.fetch(result.outputs["model"])).verified.get("checks", {})
            for key in ("accuracy", "sqnr_db"):
                if row[key] is None:  # of a target that was not run, its portable part's
                    row[key] = checks.get("portable", {}).get(key)
            found.append(row | times)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    head = (
        "target",
        "bytes",
        "of float",
        "accuracy",
        "SQNR dB",
        "1 row us",
        "256 rows us",
        "ours s",
        "by hand s",
        "ours - 1.05 x hand",
        "other parameters s",
    )
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        ours, hand = row.get("compile_seconds"), row.get("by_hand_seconds")
        over = None if ours is None or hand is None else ours - 1.05 * hand
        keys = ("size_bytes", "size_ratio", "accuracy", "sqnr_db", "latency_us", "latency_256_us")
        digits_of = (",.0f", ".2f", ".4f", ".1f", ".1f", ",.0f")
        cells = [row["target"]]
        cells += ["-" if row.get(k) is None else format(row[k], d) for k, d in zip(keys, digits_of, strict=True)]
        cells += ["-" if value is None else f"{value:.1f}" for value in (ours, hand, over, row.get("again_seconds"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default=",".join(DEFAULT))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = measure(arguments.targets.split(","), arguments.rounds)
    print(json.dumps(rows, indent=1) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
