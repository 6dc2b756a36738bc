"""The target ``hls``: a project for AMD's Vitis HLS by hls4ml, proven by its C++ emulation.

Runs in the target's own environment. The emulation is the project's own C++ with its fixed-point types, compiled by
``g++``: its scores are bit by bit those of the hardware. Synthesis (resources, timing) needs Vitis HLS and is not done
here: ``build_prj.tcl`` in the project does it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from edgewright.errors import UserFault
from edgewright.targets.base import Compiled, Job
from edgewright.targets.hls_emulation import load_emulation, structure_of

_PROJECT = "project"
_EXECUTED = 16
_BUILT = (".so", ".o", ".a")
#: What hls4ml has made in this process; ``open_model`` asks its emulation.
_made: dict[str, Any] = {}


def compile_model(job: Job) -> Compiled:
    """Write a project for the arithmetic of a model, and build its emulation.

    Raises:
        UserFault: hls4ml does not know a layer, or the emulation does not build.
    """
    options = job.options
    model, channels = _prepared(job)
    original = _one_row(job)
    is_qonnx = any(node.op_type == "Quant" for node in original.graph.node)
    # the stamp goes into file names; it follows from the job, so that equal jobs give equal bytes
    digest = hashlib.sha256(job.model + repr(sorted(options.items())).encode()).hexdigest()
    with _inside(job.scratch), mock.patch("uuid.uuid4", return_value=uuid.UUID(digest[:32])):
        project, reused = _convert(model, options, job.kept)
        _made[digest] = (project, channels)
        details = {name: options[name] for name in ("part", "clock_ns", "precision", "reuse_factor", "strategy", "io")}
        layers = [type(layer).__name__ for layer in project.get_layers()]
        data = _archive(job.scratch / _PROJECT)
        structure = structure_of(job.scratch / _PROJECT)
        if is_qonnx:
            details["checks"] = {"qonnx_executor": _ask_executor(project, original, job)}
    details |= {"layers": layers, "backend": "Vitis", "synthesised": False, "channels_last": channels}
    details["structure"] = structure
    notes: tuple[str, ...] = ("hls: emulated bit by bit in C++; resources and timing need Vitis HLS (build_prj.tcl)",)
    if reused:
        notes += (
            f"hls: only parameters differ from a model that was compiled before (structure {structure[:12]}): its "
            "emulation is used again, and g++ did not run",
        )
    return Compiled(data, details=details, notes=notes, tools={name: _version(name) for name in ("hls4ml", "qonnx")})


def _prepared(job: Job) -> tuple[Any, bool]:
    """Return the model as hls4ml wants it (batch of one, channels last), and whether its channels were moved."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.gemm_to_matmul import GemmToMatMul
    from qonnx.util.cleanup import cleanup_model

    model = _one_row(job)
    _flatten_biases(model)
    channels = len(model.graph.input[0].type.tensor_type.shape.dim) == 4
    try:
        found = cleanup_model(ModelWrapper(model))
        if channels:
            found = found.transform(ConvertToChannelsLastAndClean())
        return cleanup_model(found.transform(GemmToMatMul())), channels
    except Exception as error:  # qonnx raises whatever it likes
        raise UserFault(f"qonnx cannot prepare this model: {_first_line(error)}") from error


def _one_row(job: Job) -> Any:
    import onnx

    model = onnx.load_from_string(job.model)
    for value in (*model.graph.input, *model.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        dim.dim_value = 1
    return model


def _ask_executor(project: Any, model: Any, job: Job) -> dict[str, Any]:
    """Hold the emulation against qonnx's own executor, which knows what its nodes mean."""
    import numpy as np
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    (rows,) = job.calibration.values()
    rows = np.ascontiguousarray(rows[:_EXECUTED], dtype=np.float32)
    found = cleanup_model(ModelWrapper(model))
    given, result = found.graph.input[0].name, found.graph.output[0].name
    expected = np.concatenate([execute_onnx(found, {given: row[None]})[result] for row in rows])
    emulated = np.asarray(project.predict(rows)).reshape(expected.shape)
    apart = np.abs(expected - emulated)
    return {"rows": len(rows), "exact": bool((apart == 0).all()), "max_difference": round(float(apart.max()), 9)}


def _flatten_biases(model: Any) -> None:
    """Write biases of one row as vectors; hls4ml counts their dimensions against those of a row without its batch."""
    added = {name for node in model.graph.node if node.op_type == "Add" for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name in added and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            width = tensor.dims[1]
            del tensor.dims[:]
            tensor.dims.append(width)


def _convert(model: Any, options: Any, kept: Path | None) -> tuple[Any, bool]:
    """Return the written project, ready to be asked, and whether its emulation was compiled before."""
    import hls4ml

    try:
        config = hls4ml.utils.config_from_onnx_model(
            model, granularity="name", backend="Vitis", default_precision=options["precision"],
            default_reuse_factor=options["reuse_factor"],
        )  # fmt: skip
        config["Model"]["Strategy"] = options["strategy"].capitalize()
        project = hls4ml.converters.convert_from_onnx_model(
            model, output_dir=_PROJECT, backend="Vitis", hls_config=config, part=options["part"],
            clock_period=options["clock_ns"], io_type=f"io_{options['io']}",
        )  # fmt: skip
        project.write()
        reused = load_emulation(project, Path(_PROJECT), kept)
    except Exception as error:  # hls4ml has no common class of errors
        raise UserFault(
            f"hls4ml cannot convert this model: {_first_line(error)}",
            hint="it knows dense and convolutional layers with common activations; see its documentation",
        ) from error
    return project, reused


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _archive(folder: Path) -> bytes:
    """Return a folder as a compressed archive whose bytes follow from its files alone."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(item for item in folder.rglob("*") if item.is_file() and item.suffix not in _BUILT):
            info = tarfile.TarInfo(f"{_PROJECT}/{path.relative_to(folder).as_posix()}")
            data = path.read_bytes()
            info.size, info.mode = len(data), 0o755 if path.suffix == ".sh" else 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def open_model(folder: Path, job: Job) -> Callable[[dict[str, Any]], Any]:
    """Return a function from input arrays to the emulation's output."""
    import numpy as np

    ((project, channels),) = _made.values()

    def call(arrays: dict[str, Any]) -> Any:
        (rows,) = arrays.values()
        moved = np.moveaxis(rows, 1, -1) if channels else rows
        found = project.predict(np.ascontiguousarray(moved, dtype=np.float32))
        return np.asarray(found).reshape(len(rows), -1)

    return call


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder: hls4ml writes the path that it was given into the project."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)
