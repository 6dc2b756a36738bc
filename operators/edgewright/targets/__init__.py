"""Edge targets: a light description each; the compiler is imported only when it runs."""

from __future__ import annotations

from edgewright.targets.base import TARGETS, Compiled, Job, Target, compile_for, find_target, known_targets

__all__ = ["TARGETS", "Compiled", "Job", "Target", "compile_for", "find_target", "known_targets"]
