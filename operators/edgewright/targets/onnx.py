"""The target ``onnx``: the float model as it is, in canonical bytes."""

from __future__ import annotations

from edgewright.targets.base import Compiled, Job
from edgewright.targets.graph import canonical_bytes, describe, parse


def compile_model(job: Job) -> Compiled:
    """Return the float model; nothing is changed beside its canonical form."""
    model = parse(job.model)
    return Compiled(canonical_bytes(model), details=describe(model))
