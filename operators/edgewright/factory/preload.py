"""Import the heavy libraries once, in the scheduler, so that no task pays for them.

The workers of the LocalExecutor are forks of the scheduler, and tasks are forks of those: what the scheduler has
imported, they have. It must only *import*: a process that has computed (a fit, a matrix product, an ONNX session) holds
locks and threads that its forks lack, and every fork of it hangs.

Airflow reads ``airflow_local_settings.py`` from ``AIRFLOW_HOME/config`` in each of its processes; :func:`install`
writes one, and it does nothing unless ``EDGEWRIGHT_PRELOAD`` is set and the process is the scheduler.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

#: In this order: what others build on comes first.
LIBRARIES = (
    "pandas", "pyarrow", "pyarrow.parquet", "pyarrow.dataset", "sklearn", "sklearn.pipeline", "sklearn.preprocessing",
    "sklearn.neural_network", "sklearn.linear_model", "sklearn.ensemble", "sklearn.metrics", "sklearn.impute",
    "sklearn.compose", "onnx", "onnxruntime", "onnxruntime.quantization", "skl2onnx", "pandera", "pandera.pandas",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "mlflow", "mlflow.tracking",
    "mlflow.store.tracking.rest_store",
)  # fmt: skip
#: Ours, because a Dag file and a task import them anyway.
OWN = (
    "edgewright.factory.dag",
    "edgewright.factory.stub",
    "edgewright.steps.execute",
    "edgewright.steps.request",
    "edgewright.installation",
)
SETTINGS = '''"""Written by Edgewright: the scheduler imports what tasks need, once (see edgewright.factory.preload)."""

from edgewright.factory.preload import preload_scheduler

preload_scheduler()
'''

log = logging.getLogger("edgewright.preload")


def preload_scheduler(arguments: Iterable[str] | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """Import the libraries if this process is a scheduler that was asked to; return what was imported.

    Args:
        arguments: The process's command line.
        environ: Its environment; ``EDGEWRIGHT_PRELOAD`` is ``1``, or the modules to import, separated by commas.
    """
    environ = os.environ if environ is None else environ
    wanted = environ.get("EDGEWRIGHT_PRELOAD", "")
    if not wanted or wanted == "0" or "scheduler" not in (sys.argv if arguments is None else arguments):
        return []
    names = LIBRARIES + OWN if wanted == "1" else tuple(name.strip() for name in wanted.split(","))
    return preload(names)


def preload(names: Iterable[str] = LIBRARIES + OWN) -> list[str]:
    """Import modules, and nothing more; what is not installed is left out. Return what was imported."""
    started = time.perf_counter()
    done: list[str] = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a library that cannot be imported must not keep the scheduler from starting
            log.warning("not preloaded: %s: %s", name, error)
        else:
            done.append(name)
    log.info("preloaded %d modules in %.1f s", len(done), time.perf_counter() - started)
    return done


def install(config: Path) -> Path:
    """Write ``airflow_local_settings.py`` into ``AIRFLOW_HOME/config``; one that somebody else wrote is left alone.

    Returns:
        The file.

    Raises:
        FileExistsError: there is one that is not ours.
    """
    file = config / "airflow_local_settings.py"
    if file.exists() and "edgewright.factory.preload" not in file.read_text():
        raise FileExistsError(f"{file} is not ours; add the lines of edgewright.factory.preload.SETTINGS to it")
    config.mkdir(parents=True, exist_ok=True)
    file.write_text(SETTINGS)
    return file
