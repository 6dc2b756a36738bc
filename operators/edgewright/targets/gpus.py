"""Which NVIDIA GPUs this machine has."""

from __future__ import annotations

import shutil
import subprocess


def nvidia_gpus() -> list[str]:
    """Return name and compute capability of each GPU that the driver shows, such as ``NVIDIA H200, 9.0``."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
