"""What runs in AMD's own container: ``python compile.py``, with its Python 3.8, PyTorch and vai_q_pytorch.

This file is copied there beside ``network.json``, ``weights.npz``, ``calibration.npy``, ``rows.npy``, ``expected.npy``
and ``arch.json``; nothing else of this package is there. It makes a PyTorch module of the network, holds it against
what the float model answers, has vai_q_pytorch calibrate and export it, and vai_c_xir compile it. What it leaves in
``$EDGEWRIGHT_OUTPUT``: ``model.xmodel``, ``quantized.xmodel``, ``quantized.npy`` (what the quantizer's simulation
answers to the rows), ``tools.json``; or ``failure.json`` with the stage and the last lines.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path("quantize_result")
COMPILED = Path("compiled")
_BATCH = 32
#: Largest difference between the module and the float model, relative to the largest answer.
_TOLERANCE = 1e-3
_LAST_LINES = 12


class Refused(Exception):
    """Something is not as it must be; the message says what."""


def compile_all() -> int:
    """Run the three stages, each a process of its own; return an exit code."""
    output = Path(os.environ["EDGEWRIGHT_OUTPUT"])
    hide = re.compile(json.loads(Path("network.json").read_text())["hide"])
    ours = [sys.executable, str(Path(__file__).resolve())]
    arguments = ["-a", "arch.json", "-o", str(COMPILED), "-n", "model"]
    stages: tuple[tuple[str, Callable[[], list[str]], Callable[[], object]], ...] = (
        ("vai_q_pytorch (calibration)", lambda: [*ours, "calibrate"], lambda: None),
        ("vai_q_pytorch (export)", lambda: [*ours, "export"], _exported),
        ("vai_c_xir", lambda: ["vai_c_xir", "-x", str(_exported()), *arguments], _compiled),
    )
    for name, command, check in stages:
        lines: list[str] = []
        try:
            code = _run(command(), hide, lines)
            if code == 0:
                check()
                continue
        except Refused as error:
            code, lines = 1, [*lines, str(error)]
        text = json.dumps({"stage": name, "code": code, "lines": lines[-_LAST_LINES:]})
        (output / "failure.json").write_text(text)
        return code if 0 < code < 256 else 1
    shutil.copyfile(str(_compiled()), str(output / "model.xmodel"))
    shutil.copyfile(str(_exported()), str(output / "quantized.xmodel"))
    shutil.copyfile("quantized.npy", str(output / "quantized.npy"))
    (output / "tools.json").write_text(json.dumps(_tools(), sort_keys=True))
    return 0


def _run(command: list[str], hide: re.Pattern[str], lines: list[str]) -> int:
    """Run a program; print and keep its lines, but for those that may be data."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603 (no shell)
    except OSError as error:
        raise Refused(f"{command[0]} is not in this image: {error}") from error
    assert process.stdout is not None
    for raw in process.stdout:
        line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw.decode(errors="replace")).strip()
        if line and not hide.search(line):
            print(line, flush=True)  # noqa: T201 (the log of the container)
            lines.append(line[:300])
    return process.wait()


def _exported() -> Path:
    """Return what the quantizer exported."""
    found = sorted(RESULT.glob("*_int.xmodel"))
    if len(found) != 1:
        raise Refused(f"vai_q_pytorch wrote {len(found)} files *_int.xmodel, and one was expected")
    return found[0]


def _compiled() -> Path:
    path = COMPILED / "model.xmodel"
    if not path.is_file():
        raise Refused("vai_c_xir ended well and wrote no model.xmodel")
    return path


def _tools() -> dict[str, str]:
    """Return versions: of the conda packages that are AMD's, and of what can be imported."""
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "pytorch_nndct"):
        try:
            found[name] = str(getattr(__import__(name), "__version__", "unknown"))
        except ImportError:
            continue
    folder = Path(os.environ.get("CONDA_PREFIX", sys.prefix)) / "conda-meta"
    for name in ("vaic", "xcompiler", "xir", "vart", "target_factory", "pytorch_nndct_cpu", "pytorch_nndct_gpu"):
        for path in sorted(folder.glob(f"{name}-*.json")):
            package = json.loads(path.read_text())
            if package.get("name") == name:
                found[name] = f"{package.get('version')} {package.get('build', '')}".strip()
    return found


# -- the network as a module -----------------------------------------------------------------------------------------


def build() -> tuple[Any, Any]:
    """Return PyTorch and the network as one of its modules."""
    import torch

    described = json.loads(Path("network.json").read_text())
    weights = np.load("weights.npz")

    class Network(torch.nn.Module):  # type: ignore[misc]  # untyped library
        """One submodule a layer; functions between them."""

        def __init__(self) -> None:
            super().__init__()
            for index, layer in enumerate(described["layers"]):
                made = _layer(torch, layer, weights)
                if made is not None:
                    setattr(self, f"layer_{index}", made)

        def forward(self, value: Any) -> Any:
            values = {described["source"]: value}
            for index, layer in enumerate(described["layers"]):
                given = [values[name] for name in layer["inputs"]]
                made = getattr(self, f"layer_{index}", None)
                values[layer["output"]] = made(*given) if made is not None else _call(torch, layer, given)
            return values[described["result"]]

    network = Network()
    network.eval()
    return torch, network


def _layer(torch: Any, layer: dict[str, Any], weights: Any) -> Any:
    """Return the submodule of a layer; ``None`` where a function does."""
    nn, kind = torch.nn, layer["kind"]
    if kind in ("conv", "linear", "batch_norm"):
        return _with_weights(torch, layer, weights)
    simple = {
        "relu": lambda: nn.ReLU(),
        "relu6": lambda: nn.ReLU6(),
        "leaky_relu": lambda: nn.LeakyReLU(layer["slope"]),
        "max_pool": lambda: nn.MaxPool2d(
            layer["kernel"], layer["stride"], layer["padding"], ceil_mode=layer["ceil_mode"]
        ),
        "average_pool": lambda: nn.AvgPool2d(
            layer["kernel"],
            layer["stride"],
            layer["padding"],
            ceil_mode=layer["ceil_mode"],
            count_include_pad=layer["count_include_pad"],
        ),
        "global_average_pool": lambda: nn.AdaptiveAvgPool2d(1),
        "pad": lambda: nn.ZeroPad2d(layer["padding"]),
    }
    return simple[kind]() if kind in simple else None


def _with_weights(torch: Any, layer: dict[str, Any], weights: Any) -> Any:
    arrays = [torch.from_numpy(np.ascontiguousarray(weights[name])) for name in layer["weights"]]
    shape = arrays[0].shape
    if layer["kind"] == "conv":
        made = torch.nn.Conv2d(
            int(shape[1]) * layer["groups"],
            int(shape[0]),
            (int(shape[2]), int(shape[3])),
            stride=layer["stride"],
            padding=layer["padding"],
            dilation=layer["dilation"],
            groups=layer["groups"],
            bias=len(arrays) > 1,
        )
        names = ["weight", "bias"]
    elif layer["kind"] == "linear":
        made = torch.nn.Linear(int(shape[1]), int(shape[0]), bias=len(arrays) > 1)
        names = ["weight", "bias"]
    else:
        made = torch.nn.BatchNorm2d(int(shape[0]), eps=layer["epsilon"])
        names = ["weight", "bias", "running_mean", "running_var"]
    state = dict(zip(names, arrays))  # noqa: B905 (Python 3.8)
    made.load_state_dict({**made.state_dict(), **state})
    return made


def _call(torch: Any, layer: dict[str, Any], given: list[Any]) -> Any:
    kind = layer["kind"]
    if kind == "add":
        return given[0] + given[1]
    if kind == "mul":
        return given[0] * given[1]
    if kind == "concat":
        return torch.cat(given, dim=layer["axis"])
    if kind == "identity":
        return given[0]
    if kind == "flatten":
        return torch.flatten(given[0], 1)
    return torch.reshape(given[0], [-1, *layer["shape"]])


# -- the quantizer ---------------------------------------------------------------------------------------------------


def _quantizer(mode: str, batch: int) -> tuple[Any, Any]:
    # vai_q_pytorch wants to be imported before PyTorch where that is old
    from pytorch_nndct.apis import torch_quantizer

    torch, network = build()
    shape = np.load("calibration.npy", mmap_mode="r").shape[1:]
    example = torch.zeros([batch, *shape])
    if mode == "calib":
        _hold_against(torch, network)
    found = torch_quantizer(mode, network, (example,), output_dir=str(RESULT), device=torch.device("cpu"))
    return torch, found


def _hold_against(torch: Any, network: Any) -> None:
    """Refuse a module that does not compute what the float model does."""
    expected = np.load("expected.npy")
    found = _answers(torch, network, np.load("rows.npy"), _BATCH)
    apart = float(np.abs(found.reshape(expected.shape) - expected).max())
    if not apart <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise Refused(f"the PyTorch module made of the network differs from the float model by {apart:.3g}")


def _answers(torch: Any, network: Any, rows: Any, batch: int) -> Any:
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            part = np.ascontiguousarray(rows[start : start + batch], dtype=np.float32)
            found.append(np.asarray(network(torch.from_numpy(part)).detach().numpy()))
    return np.concatenate(found)


def calibrate() -> None:
    """Learn the ranges of numbers from the calibration rows."""
    rows = np.load("calibration.npy")
    batch = min(_BATCH, len(rows))
    torch, quantizer = _quantizer("calib", batch)
    # whole batches only: the traced graph may have kept the size of the example
    _answers(torch, quantizer.quant_model, rows[: len(rows) - len(rows) % batch], batch)
    quantizer.export_quant_config()


def export() -> None:
    """Answer the rows by the quantizer's simulation, one at a time, and export for the compiler."""
    torch, quantizer = _quantizer("test", 1)
    np.save("quantized.npy", _answers(torch, quantizer.quant_model, np.load("rows.npy"), 1))
    quantizer.export_xmodel(output_dir=str(RESULT), deploy_check=False)


def main(arguments: list[str]) -> int:
    """Run a stage, or all of them."""
    if not arguments:
        return compile_all()
    try:
        {"calibrate": calibrate, "export": export}[arguments[0]]()
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
