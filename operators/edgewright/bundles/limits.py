"""How much a bundle of somebody else may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Bounds on what is read, and on the process that tries the model.

    Attributes:
        total_bytes: Size of all files together.
        files: How many there may be.
        manifest_bytes: Size of ``manifest.json``.
        golden_rows: Rows of the self-test.
        opsets: Newest version of each operator set that may be used.
        memory_gib: Memory of the process that loads the model.
        seconds: Time of that process.
    """

    total_bytes: int = 512 << 20
    files: int = 2000
    manifest_bytes: int = 4 << 20
    golden_rows: int = 1000
    opsets: Mapping[str, int] = field(default_factory=lambda: {"ai.onnx": 21, "ai.onnx.ml": 5, "com.microsoft": 1})
    memory_gib: float = 2.0
    seconds: float = 60.0
