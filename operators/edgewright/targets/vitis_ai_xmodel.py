"""The target ``vitis-ai-xmodel``: an ``.xmodel`` for the DPU of one board, by AMD's container.

The container has a Python and libraries of its own and nothing of ours, so this module has two halves. Before: the
arithmetic of the model as layers of PyTorch and its weights, calibration rows, rows to be answered, ``arch.json`` of
the user's bitstream, and the program that runs there (``vitis_ai_container.py``). After: what it left is checked, above
all that it was compiled for that very DPU. An xmodel runs on its board alone, so nothing here can run it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import ConfigError, SystemFault, UserFault
from edgewright.targets.base import Compiled, Job
from edgewright.targets.isolated import DATA_LINE
from edgewright.targets.torch_layers import Layers
from edgewright.targets.xmodel import Xmodel, read_xmodel

QUANTIZED = "quantized.xmodel"
REASON = "an xmodel runs on the DPU of its board alone"
#: Rows that the quantizer's simulation answers, one at a time.
_MOST_ROWS = 256
#: AMD's image puts its tools on the path in interactive shells only.
_RUN = """\
set -e
cd "$(dirname "$0")"
if ! command -v vai_c_xir > /dev/null && [ -f /opt/vitis_ai/conda/etc/profile.d/conda.sh ]; then
  . /opt/vitis_ai/conda/etc/profile.d/conda.sh
  conda activate "$(cat environment)"
fi
exec python compile.py
"""


def prepare(job: Job, rows: Mapping[str, Any], expected: Any, folder: Path) -> None:
    """Fill the folder that the command in the container works in.

    Args:
        job: The arithmetic, calibration rows, and options with ``arch`` as a full path.
        rows: Held-out rows as the arithmetic takes them.
        expected: What the float arithmetic answers to them.
        folder: Where to write; ``run.sh`` is what the container runs.

    Raises:
        UserFault: the model has layers that are not known here, or ``arch.json`` names no DPU.
    """
    import onnx

    arch = read_arch(Path(job.options["arch"]))
    layers = Layers(onnx.load_from_string(job.model))
    (calibration,) = job.calibration.values()
    (held_out,) = rows.values()
    chosen = np.linspace(0, len(held_out) - 1, min(_MOST_ROWS, len(held_out))).round().astype(int)
    described = {
        "source": layers.source, "result": layers.result, "layers": layers.layers, "hide": DATA_LINE,
        "model": _digest(job),
    }  # fmt: skip
    (folder / "network.json").write_text(json.dumps(described))
    np.savez(folder / "weights.npz", **layers.weights)
    np.save(folder / "calibration.npy", np.asarray(calibration, dtype=np.float32))
    np.save(folder / "rows.npy", np.asarray(held_out, dtype=np.float32)[chosen])
    np.save(folder / "expected.npy", np.asarray(expected, dtype=np.float32)[chosen])
    (folder / "arch.json").write_text(json.dumps(arch))
    (folder / "environment").write_text(str(job.options["conda"]))
    (folder / "run.sh").write_text(_RUN)
    shutil.copyfile(Path(__file__).with_name("vitis_ai_container.py"), folder / "compile.py")


def _digest(job: Job) -> str:
    return hashlib.sha256(job.model).hexdigest()


def read_arch(path: Path) -> dict[str, Any]:
    """Return the DPU's description that came with the user's bitstream.

    Raises:
        ConfigError: it names neither a fingerprint nor a target.
    """
    hint = 'such as {"fingerprint": "0x..."} or {"target": "DPUCZDX8G_ISA1_B4096"}, from the platform of your bitstream'
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path.name} is no JSON: {error}", where="options.arch", hint=hint) from None
    if not isinstance(found, dict) or not (found.get("fingerprint") or found.get("target")):
        raise ConfigError(f"{path.name} names no DPU", where="options.arch", hint=hint)
    if found.get("fingerprint"):
        try:
            int(str(found["fingerprint"]), 16)
        except ValueError:
            message = f"{path.name}: {found['fingerprint']!r} is no fingerprint"
            raise ConfigError(message, where="options.arch", hint=hint) from None
    return found


def collect(job: Job, code: int, folder: Path) -> Compiled:
    """Return what the container left, after checking it.

    Args:
        job: The same that was prepared.
        code: How the command ended.
        folder: The shared folder, with ``work`` and ``output``.

    Raises:
        UserFault: the quantizer or the compiler refused the model, or it is compiled for another DPU.
    """
    output = folder / "output"
    _raise_failure(code, output)
    if json.loads((folder / "work" / "network.json").read_text())["model"] != _digest(job):
        raise SystemFault("the container compiled another model than this task has exported", hint="run the task again")
    arch = read_arch(Path(job.options["arch"]))
    data, quantized = _left(output, "model.xmodel"), _left(output, QUANTIZED)
    _check_batch(read_xmodel(quantized))
    found = read_xmodel(data)
    _check_dpu(found, arch)
    details = {
        "dpu": found.dpus[0],
        "fingerprint": f"0x{found.fingerprints[0]:x}",
        "batch": 1,
        "subgraphs": found.devices,
        "operators": found.operators,
        "calibration_rows": len(next(iter(job.calibration.values()))),
        "checks": {"fingerprint": "that of arch.json" if arch.get("fingerprint") else "of the target in arch.json",
                   "quantizer_simulation": _simulated(output, folder / "work")},
    }  # fmt: skip
    notes = (f"vitis-ai-xmodel: compiled for {found.dpus[0]}, fingerprint 0x{found.fingerprints[0]:x}",)
    tools = json.loads(_left(output, "tools.json"))
    tools = {("python of the container" if name == "python" else name): str(v) for name, v in tools.items()}
    return Compiled(data, details=details, notes=notes, tools=tools, unverified=REASON)


def _raise_failure(code: int, output: Path) -> None:
    failure = output / "failure.json"
    if failure.is_file():
        found = json.loads(failure.read_text())
        lines = " | ".join(found["lines"]) or "it printed nothing"
        raise UserFault(f"{found['stage']} ended with {found['code']}: {lines}",
                        hint="the log of the container has all that it printed")  # fmt: skip
    if code:
        raise UserFault(
            f"the command in the container ended with {code} before it began",
            hint="image: one of AMD's with vai_q_pytorch, such as xilinx/vitis-ai-pytorch-cpu; options.conda: "
            "the name of its environment",
        )


def _left(output: Path, name: str) -> bytes:
    try:
        return (output / name).read_bytes()
    except FileNotFoundError:
        raise UserFault(f"the container left no {name}", hint="its log says what it did") from None


def _check_batch(quantized: Xmodel) -> None:
    other = {name: shape for name, shape in quantized.inputs.items() if shape[:1] != (1,)}
    if other or not quantized.inputs:
        said = ", ".join(f"{name} {list(shape)}" for name, shape in other.items()) or "no input"
        raise UserFault(f"the quantizer exported {said}, and the compiler for the DPU takes batches of 1")


def _check_dpu(found: Xmodel, arch: Mapping[str, Any]) -> None:
    """Refuse an xmodel for another DPU: VART on the board would, or would compute nonsense where that is off."""
    if not found.devices.get("DPU") or not found.fingerprints:
        devices = ", ".join(found.devices) or "nothing"
        raise UserFault(
            f"nothing of this model runs on the DPU: the compiler put all of it on {devices}",
            hint="the container's log says which layers it refused, and why",
        )
    wanted = arch.get("fingerprint")
    if wanted and found.fingerprints != (int(str(wanted), 16),):
        has = ", ".join(f"0x{one:x}" for one in found.fingerprints)
        raise UserFault(
            f"the xmodel is compiled for the fingerprint {has} ({', '.join(found.dpus)}), and arch.json says {wanted}",
            where="options.arch", hint="take arch.json and the image from the same release of Vitis AI",
        )  # fmt: skip
    target = arch.get("target")
    if target and found.dpus != (str(target),):
        raise UserFault(f"the xmodel is compiled for {', '.join(found.dpus)}, and arch.json says {target}",
                        where="options.arch")  # fmt: skip


def _simulated(output: Path, work: Path) -> dict[str, Any]:
    """Return how far the quantizer's own simulation is from the float model; not a measurement of the DPU."""
    expected = np.load(work / "expected.npy").astype(np.float64)
    found = np.load(output / "quantized.npy", allow_pickle=False).astype(np.float64).reshape(expected.shape)
    noise, power = float(((expected - found) ** 2).sum()), float((expected**2).sum())
    described: dict[str, Any] = {"by": "vai_q_pytorch in the container, not the DPU", "rows": len(expected)}
    described["max_difference"] = round(float(np.abs(expected - found).max()), 6)
    if noise and power:
        described["sqnr_db"] = round(float(10 * np.log10(power / noise)), 3)
    if expected.ndim == 2 and expected.shape[1] > 1:
        described["agreement"] = round(float((expected.argmax(1) == found.argmax(1)).mean()), 6)
    return described
