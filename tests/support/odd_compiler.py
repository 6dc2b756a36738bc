"""A compiler that does what compilers do at their worst; runs in a target's child process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewright.errors import UserFault
from edgewright.targets.base import Compiled, Job


def compile_model(job: Job) -> Compiled:
    mood = job.options["mood"]
    (rows,) = job.calibration.values()
    if mood == "talk":
        print("loading the model")
        print("calibrating with", rows)
        print(rows.tolist())
        print(f"reader <{dict(job.calibration)}>", file=sys.stderr)
        print("\n".join(str(float(value)) for value in rows.ravel()))
        print("done in 3 s")
    if mood == "sleep":
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    if mood == "eat":
        bytearray(3 * 2**30)
    if mood == "die":
        print("Segmentation fault, says nobody")
        sys.stdout.flush()
        os._exit(139)
    if mood == "refuse":
        raise UserFault("this chip has no softmax", hint="leave it out")
    secrets = sorted(name for name in os.environ if "SECRET" in name)
    return Compiled(job.model[::-1], {"secrets": secrets}, ("a note",), {"more/weights.bin": b"12"}, {"odd": "1.0"})


def open_model(folder: Path, job: Job) -> Callable[[dict[str, Any]], Any]:
    assert (folder / "model.bin").exists()
    assert (folder / "more" / "weights.bin").exists()
    return lambda arrays: next(iter(arrays.values())) * 2
