"""Importing the heavy libraries once, in the scheduler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.factory.preload import install, preload_scheduler

# As the LocalExecutor does it: a worker is a fork of the scheduler, a task a fork of that. A parent that had computed
# would leave locks behind, and these would never end.
FORKS = """
import os
from edgewright.factory.preload import LIBRARIES, preload_scheduler
done = preload_scheduler(["airflow", "scheduler"], {"EDGEWRIGHT_PRELOAD": "1"})
assert set(LIBRARIES) <= set(done), set(LIBRARIES) - set(done)

def task():
    import numpy, onnxruntime
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier
    X = numpy.random.default_rng(0).normal(size=(300, 8)).astype("float32")
    (numpy.ones((600, 600)) @ numpy.ones((600, 600))).sum()
    model = MLPClassifier((8,), max_iter=300).fit(X, (X[:, 0] > 0).astype(int))
    session = onnxruntime.InferenceSession(to_onnx(model, X[:1]).SerializeToString())
    session.run(None, {session.get_inputs()[0].name: X})

for _ in range(2):
    worker = os.fork()
    if worker == 0:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                task()
                code = 0
            finally:
                os._exit(code)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
print("ALL ENDED")
"""


def test_forks_of_a_process_that_has_preloaded_compute_and_end():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=120, check=False
    )
    assert "ALL ENDED" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["airflow", "scheduler"], {}),
        (["airflow", "scheduler"], {"EDGEWRIGHT_PRELOAD": "0"}),
        (["airflow", "dag-processor"], {"EDGEWRIGHT_PRELOAD": "1"}),
        (["airflow", "api-server"], {"EDGEWRIGHT_PRELOAD": "1"}),
    ],
)
def test_nothing_is_imported_where_nobody_asked(arguments: list[str], environ: dict[str, str]):
    assert preload_scheduler(arguments, environ) == []


def test_a_library_that_is_missing_stops_nothing():
    asked = {"EDGEWRIGHT_PRELOAD": "json, no_such_library"}
    assert preload_scheduler(["airflow", "scheduler"], asked) == ["json"]


def test_the_settings_file_is_python_and_leaves_others_alone(tmp_path: Path):
    file = install(tmp_path / "config")
    compile(file.read_text(), str(file), "exec")
    assert install(tmp_path / "config") == file
    file.write_text("x = 1\n")
    with pytest.raises(FileExistsError, match="is not ours"):
        install(tmp_path / "config")
    assert file.read_text() == "x = 1\n"
