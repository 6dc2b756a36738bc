"""The target ``tvm-aarch64``: a shared library for 64-bit ARM Linux by Apache TVM.

Runs in the target's own environment. The library is linked by the C compiler that the environment brings (zig), so no
cross compiler of the system is needed. On a machine that is no AArch64 it cannot be run; there the same graph is also
compiled for this processor and held against ONNX's reference implementation, which proves the import and TVM's passes,
and nothing about the ARM code. The variant stays unverified.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgewright.errors import SystemFault, UserFault
from edgewright.targets.base import Compiled, Job

_TRIPLE = "aarch64-linux-gnu"
_TWIN_ROWS = 16
#: Two orders of summing 32-bit floats; more is another computation.
_TWIN_TOLERANCE = 1e-3


def compile_model(job: Job) -> Compiled:
    """Compile the arithmetic of a model, one row a call.

    Raises:
        UserFault: TVM does not know an operator.
        SystemFault: TVM's code for this processor does not compute what the model says.
    """
    import onnx

    model = _one_row(onnx.load_from_string(job.model))
    library = job.scratch / "model.so"
    _library(model, library, {"kind": "llvm", "mtriple": _TRIPLE, "mattr": list(job.options["features"])})
    data = library.read_bytes()
    details: dict[str, Any] = {"triple": _TRIPLE, "features": list(job.options["features"]), "precision": "float32"}
    if platform.machine() != "aarch64":
        details["checks"] = {"twin_of_this_processor": _check_twin(model, job)}
    reason = "" if platform.machine() == "aarch64" else f"this machine is {platform.machine()}, no AArch64"
    tools = {name: _version(name) for name in ("apache-tvm", "ziglang")}
    return Compiled(data, details=details, tools=tools, unverified=reason)


def _one_row(model: Any) -> Any:
    for value in (*model.graph.input, *model.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        dim.dim_value = 1
    return model


def _library(model: Any, path: Path, target: dict[str, Any]) -> None:
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    try:
        module = from_onnx(model, keep_params_in_input=False)
        built = tvm.compile(module, target=tvm.target.Target(target))
    except Exception as error:  # TVM's errors have no common class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserFault(f"TVM cannot compile this model: {lines[-1][:300]}", hint="use target: onnx-int8") from error
    triple = _TRIPLE if "mtriple" in target else None
    built.export_library(str(path), fcompile=_linker(triple))


def _linker(triple: str | None) -> Callable[..., None]:
    """Return what links object files into a shared library for a machine."""

    def link(output: str, objects: Sequence[str], options: Sequence[str] | None = None, **_: Any) -> None:
        target = ["-target", triple] if triple else []
        command = [sys.executable, "-m", "ziglang", "cc", *target, "-shared", "-fPIC", "-s", "-Wl,--build-id=none"]
        done = subprocess.run(  # noqa: S603 (our own arguments, no shell)
            [*command, "-o", output, *objects, *(options or ())], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemFault(f"the library could not be linked: {done.stderr.strip()[-300:]}")

    link.output_format = "so"  # type: ignore[attr-defined]
    link.get_target_triple = lambda: triple or ""  # type: ignore[attr-defined]
    return link


def _check_twin(model: Any, job: Job) -> dict[str, Any]:
    """Compile the same for this processor, and hold it against ONNX's reference implementation."""
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    library = job.scratch / "twin.so"
    _library(model, library, {"kind": "llvm"})
    (rows,) = job.calibration.values()
    rows = np.ascontiguousarray(rows[:_TWIN_ROWS], dtype=np.float32)
    found = _caller(library)({model.graph.input[0].name: rows})
    evaluator = ReferenceEvaluator(model)
    expected = np.concatenate([evaluator.run(None, {model.graph.input[0].name: row[None]})[0] for row in rows])
    apart = float(np.abs(found - expected).max())
    if not apart <= _TWIN_TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise SystemFault(f"TVM's code for this processor differs from the model by {apart:.3g}")
    return {"rows": len(rows), "max_difference": round(apart, 7)}


def open_model(folder: Path, job: Job) -> Callable[[dict[str, Any]], Any]:
    """Return a function from input arrays to the output; rows go through one by one."""
    return _caller(folder / "model.so")


def _caller(library: Path) -> Callable[[dict[str, Any]], Any]:
    import numpy as np
    import tvm
    from tvm import relax

    device = tvm.cpu()
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), device)

    def call(arrays: dict[str, Any]) -> Any:
        (rows,) = arrays.values()
        answers = []
        for row in np.ascontiguousarray(rows, dtype=np.float32):
            found = machine["main"](tvm.runtime.tensor(row[None], device))
            answers.append((found if hasattr(found, "numpy") else found[0]).numpy())
        return np.concatenate(answers)

    return call


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)
