"""A compiler that changes nothing, run by onnxruntime: what a target with an environment of its own must offer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.targets.base import Compiled, Job


def compile_model(job: Job) -> Compiled:
    return Compiled(job.model, {"seen": sorted(job.options)}, unverified=str(job.options.get("unverified", "")))


def open_model(folder: Path, job: Job) -> Callable[[dict[str, Any]], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession((folder / "model.mirror").read_bytes())
    return lambda arrays: session.run(None, arrays)[0]
