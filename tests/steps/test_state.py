"""A cached result must not lie, and must not cost the import of what made it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from edgewright.spec.steps import STEPS

HEAVY = {"numpy", "pandas", "pyarrow", "sklearn", "mlflow", "onnx", "onnxruntime", "matplotlib", "pandera"}
DECLARED = [name for name, spec in STEPS.items() if spec.state is not None]


@pytest.mark.parametrize("name", DECLARED)
def test_a_step_that_reads_nothing_else_has_no_state_function(name: str):
    spec = STEPS[name]
    if spec.state:
        module, _, function = spec.state.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    else:
        assert not hasattr(importlib.import_module(spec.module), "state"), f"give {name} its state in the table"


@pytest.mark.parametrize("name", [name for name in DECLARED if STEPS[name].state])
def test_asking_for_the_state_imports_nothing_heavy(name: str):
    module = str(STEPS[name].state).partition(":")[0]
    code = f"import sys, {module}; print(sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
