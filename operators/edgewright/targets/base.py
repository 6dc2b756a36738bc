"""What a target is, which ones there are, and how one is asked to compile.

A target is described by a few words that can be read without importing its compiler. Its module is imported when a
task compiles for it, and offers one function, or two where something other than onnxruntime runs what it makes::

    def compile_model(job: Job) -> Compiled: ...
    def open_model(folder: Path, job: Job) -> Callable[[dict[str, ndarray]], ndarray]: ...

A target with an ``environment`` is imported in a child process of that virtual environment, which has its compiler and
nothing of ours beside this package's files: its module may import the standard library, ``edgewright.errors``,
``edgewright.targets.base`` and what its lock lists.

Other distributions add targets by an entry point of the group ``edgewright.targets`` that names a :class:`Target`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError

GROUP = "edgewright.targets"


@dataclass(frozen=True)
class Target:
    """Hardware or a runtime that a model can be compiled for; light to import.

    Attributes:
        name: What ``target:`` says in YAML.
        summary: One line for people.
        module: Where ``compile_model(job)`` is.
        suffix: Ending of the compiled file.
        format: ``format`` in ``model.json``.
        requires: Distributions that must be installed.
        options: Which of ``method``, ``per_channel`` and ``calibration`` it heeds; the others are refused.
        runtime: What runs the compiled file here (``onnxruntime`` in this process; anything else by ``open_model``), or
            ``None`` where nothing here can.
        narrows: Whether it makes numbers narrower, so that calibration rows are wanted.
        environment: Name or path of the hashed lock of its own virtual environment; ``None``: this process.
        programs: Programs that must be on the path, such as ``g++``.
        core: Whether it takes the arithmetic of a model only; what stands before and behind that (imputers, scalers,
            softmax) stays with onnxruntime on the host processor.
        foreign: Whether somebody else's image compiles it, on a profile with ``foreign: true``; its module then offers
            ``prepare(job, rows, expected, folder)`` and ``collect(job, code, folder)``, run before and after that.
        gpu: Whether a GPU of this machine compiles and runs it, from the portable graph of ``steps/compiling_gpu.py``.
        qonnx: Whether it takes a quantization-aware trained model as QONNX, with the bits of each number.
        source: Whether it makes sources to be built elsewhere, so that bytes and times say nothing about the hardware.
        seconds: Time limit of its child process.
        memory_gib: Memory limit of its child process.
    """

    name: str
    summary: str
    module: str
    suffix: str = ".onnx"
    format: str = "onnx"
    requires: tuple[str, ...] = ("onnx", "onnxruntime")
    options: tuple[str, ...] = ()
    runtime: str | None = "onnxruntime"
    narrows: bool = False
    environment: str | None = None
    programs: tuple[str, ...] = ()
    core: bool = False
    foreign: bool = False
    gpu: bool = False
    qonnx: bool = False
    source: bool = False
    seconds: float = 1800.0
    memory_gib: float = 8.0


@dataclass(frozen=True)
class Job:
    """What a compiler gets.

    Attributes:
        model: The float model (of a ``core`` target: its arithmetic) in ONNX's canonical bytes.
        calibration: Input name -> array of calibration rows.
        options: ``method``, ``per_channel``, ``calibration_method``, and the task's ``options`` with their defaults.
        scratch: Empty folder for intermediate files.
        kept: Folder that outlives the task, for what another compile may use again; ``None`` where there is none.
    """

    model: bytes
    calibration: Mapping[str, Any]
    options: Mapping[str, Any]
    scratch: Path
    kept: Path | None = None


@dataclass(frozen=True)
class Compiled:
    """What a compiler returns.

    Attributes:
        data: Bytes of the compiled file; the same job gives the same bytes.
        details: Small facts for ``model.json`` (method, counts of nodes); the same job gives the same facts.
        notes: Sentences for the log.
        files: Files that belong to it, by their path beside it.
        tools: Versions of what compiled it.
        unverified: Why it could not be run here, where the target as such has a runtime.
    """

    data: bytes
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    unverified: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return len(self.data) + sum(map(len, self.files.values()))


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("onnx", "32-bit floats in ONNX, for any ONNX runtime", "edgewright.targets.onnx"),
        Target(
            "onnx-fp16",
            "16-bit floats in ONNX, half the size, for runtimes that compute with them",
            "edgewright.targets.onnx_fp16",
        ),
        Target(
            "onnx-int8",
            "8-bit integers in ONNX (QDQ), for onnxruntime on x86 and ARM processors",
            "edgewright.targets.onnx_int8",
            options=("method", "per_channel", "calibration"),
            narrows=True,
        ),
        Target(
            "openvino",
            "OpenVINO IR, 8-bit integers by NNCF, for Intel processors, GPUs and NPUs",
            "edgewright.targets.openvino",
            suffix=".xml",
            format="openvino",
            requires=(),
            options=("calibration",),
            runtime="OpenVINO on CPU",
            narrows=True,
            environment="openvino",
            core=True,
        ),
        Target(
            "vitis-ai",
            "power-of-two INT8 in ONNX by AMD Quark, as AMD's DPUs and NPUs compute",
            "edgewright.targets.vitis_ai",
            requires=(),
            options=("calibration",),
            narrows=True,
            environment="vitis-ai",
            programs=("g++",),
            core=True,
        ),
        Target(
            "vitis-ai-xmodel",
            "an .xmodel for the DPU of one board, by AMD's own container",
            "edgewright.targets.vitis_ai_xmodel",
            suffix=".xmodel",
            format="xmodel",
            options=("calibration",),
            runtime=None,
            narrows=True,
            core=True,
            foreign=True,
        ),
        Target(
            "hls",
            "a Vitis HLS project by hls4ml, for FPGAs",
            "edgewright.targets.hls",
            suffix=".tar.gz",
            format="hls4ml",
            requires=(),
            runtime="hls4ml's C++ emulation",
            environment="hls",
            programs=("g++",),
            core=True,
            qonnx=True,
            source=True,
        ),
        Target(
            "tensorrt",
            "a TensorRT engine for the GPU at hand, with the portable INT8 ONNX beside it",
            "edgewright.targets.tensorrt",
            suffix=".engine",
            format="tensorrt",
            options=("calibration",),
            runtime="TensorRT",
            narrows=True,
            environment="tensorrt",
            core=True,
            gpu=True,
            memory_gib=64.0,
        ),
        Target(
            "tvm-aarch64",
            "a shared library for 64-bit ARM Linux by Apache TVM",
            "edgewright.targets.tvm_aarch64",
            suffix=".so",
            format="tvm",
            requires=(),
            runtime="TVM on this processor",
            environment="tvm",
            core=True,
        ),
        Target(
            "litert",
            "a .tflite file of yours, run by LiteRT",
            "edgewright.targets.litert",
            suffix=".tflite",
            format="litert",
            requires=(),
            runtime="LiteRT on CPU",
            environment="litert",
        ),
    )
}


def known_targets() -> dict[str, Target]:
    """Return all targets by name: ours, then those of installed distributions (ours cannot be replaced)."""
    found = dict(TARGETS)
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda item: item.name):
        if entry.name in found:
            continue
        try:
            target = entry.load()
        except Exception as error:
            raise ConfigError(
                f"the target {entry.name} cannot be loaded: {error}", where=f"entry point {entry.value}"
            ) from error
        if not isinstance(target, Target):
            raise ConfigError(f"the target {entry.name} is not an edgewright.targets.Target", where=entry.value)
        found[entry.name] = target
    return found


def find_target(name: str) -> Target:
    """Return a target by name.

    Raises:
        ConfigError: there is none of that name, or what it needs is not installed.
    """
    targets = known_targets()
    if name not in targets:
        near = difflib.get_close_matches(name, targets, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        raise ConfigError(
            f"no such target: {name}{suggestion}", where="target", hint=f"there are: {', '.join(sorted(targets))}"
        )
    target = targets[name]
    absent = [needed for needed in target.requires if not _installed(needed)]
    absent += [program for program in target.programs if shutil.which(program) is None]
    if absent:
        raise ConfigError(
            f"the target {name} needs {', '.join(absent)}, which this environment does not have",
            where="target",
            hint="install it in the environment or image that runs this task",
        )
    return target


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def compile_for(target: Target, job: Job) -> Compiled:
    """Import a target's compiler and run it.

    Raises:
        UserFault: the model cannot be compiled for this target.
    """
    compiled: Compiled = importlib.import_module(target.module).compile_model(job)
    return compiled
