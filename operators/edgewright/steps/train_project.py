"""Runs an MLflow Project by MLflow's own runner, and takes the model that it logs."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.artifacts.digest import list_files
from edgewright.errors import ConfigError, Unavailable, UserCodeError
from edgewright.installation import find_home
from edgewright.registry.connection import Connection
from edgewright.spec.projects import NotAProject, project_faults, read_project
from edgewright.spec.steps.train import TrainConfig
from edgewright.steps.programs import Program
from edgewright.steps.tracking import TrackedRun, track

if TYPE_CHECKING:
    from edgewright.steps.context import StepContext
    from edgewright.steps.train_program import Produced, Workplace

log = logging.getLogger("edgewright.steps")
#: Flavours of MLflow that hold what ``train`` keeps, the first that is there.
_FLAVOURS = ("onnx", "sklearn", "pytorch")
#: What MLflow's runner says around the program's own lines.
_RUNNER = ("mlflow.projects", "mlflow.cli", "INFO alembic", "INFO mlflow.store")
#: Words of MLflow when an environment could not be built.
_NOT_BUILT = ("ShellCommandException", "Failed to create", "not installed. Please install")


def execute_project(
    config: TrainConfig, place: Workplace, context: StepContext, tracked: TrackedRun, *, follows: bool = False
) -> Produced | None:
    """Run a project to its end; a node that only follows leaves nothing.

    Raises:
        ConfigError: there is no such project, entry point or parameter, or what builds its environment is missing.
        UserCodeError: it failed, or logged no model.
        Unavailable: its environment could not be built, or MLflow does not answer.
    """
    from edgewright.steps.train_program import Lines, Produced

    _check(config, place.work)
    with _run_of(config, context, tracked) as (uri, run_id):
        lines = Lines(config.code)
        said: list[str] = []

        def on_line(line: str) -> None:
            said.append(line)
            del said[:-200]
            if not any(word in line for word in _RUNNER):
                lines(line)

        code = Program(_command(config, place, run_id), _environ(place, uri, run_id), place.work).run(on_line)
        lines.close()
        if code != 0:
            _raise(config, code, said, lines.tail())
        if follows:
            return None
        model, metrics = _collect(uri, run_id, config.code, context.folder("logged"))
    return Produced(model, metrics, place.output if list_files(place.output) else None)


# -- before ------------------------------------------------------------------------------------------------------------


def _check(config: TrainConfig, work: Path) -> None:
    """Check a project again where it runs: arguments may come from another task."""
    try:
        project = read_project(work / str(config.project))
    except NotAProject as error:
        raise ConfigError(
            f"{config.project} is no MLflow Project: {error}", hint="a folder with a file MLproject"
        ) from None
    found = project_faults(
        project, str(config.project), config.entry_point, config.environment, config.args, config.inputs
    )
    if found:
        raise ConfigError("; ".join(fault.message for fault in found), hint=found[0].allowed)
    if config.environment != "local" and shutil.which(config.environment, path=_path()) is None:
        raise ConfigError(f"there is no {config.environment} here to build the project's environment",
                          hint=f"pip install {config.environment}, or environment: local")  # fmt: skip


def _path() -> str:
    """Return the search path with this interpreter's programs first: ``python`` of a command is this one."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


@contextlib.contextmanager
def _run_of(config: TrainConfig, context: StepContext, tracked: TrackedRun) -> Iterator[tuple[str, str]]:
    """Yield MLflow's address and the task's own run there; without tracking, those of a database of this task's."""
    if tracked.run_id:
        yield context.request.tracking_uri, tracked.run_id
        return
    uri = f"sqlite:///{context.folder('mlflow') / 'mlflow.db'}"
    with track(uri, experiment="project", identity=context.request.identity.key, name=config.code, tags={}) as run:
        yield uri, run.run_id


def _command(config: TrainConfig, place: Workplace, run_id: str) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "run", str(place.work / str(config.project)), "-e", config.entry_point]
    command += ["--env-manager", config.environment, "--run-id", run_id]
    for name, value in place.values.items():
        command += ["-P", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return command


def _environ(place: Workplace, uri: str, run_id: str) -> dict[str, str]:
    environments = find_home() / "environments" / "mlflow"  # built once for each python_env, by its digest
    return place.env | {
        "PATH": _path(), "MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": run_id, "MLFLOW_ENV_ROOT": str(environments),
        "GIT_PYTHON_REFRESH": "quiet",
    }  # fmt: skip


# -- after -------------------------------------------------------------------------------------------------------------


def _raise(config: TrainConfig, code: int, said: list[str], tail: str) -> None:
    if config.environment != "local" and any(word in line for line in said for word in _NOT_BUILT):
        hint = "its python_env needs the package index, and requirements that fit together"
        raise Unavailable(f"the environment of {config.project} could not be built: {tail}", hint=hint)
    if any("references untrusted types" in line for line in said):
        what = f"{config.entry_point} of {config.project}"
        hint = 'log it with serialization_format="cloudpickle", or skops_trusted_types=[...]; the log names the types'
        raise UserCodeError(f"{what} logs a model with types that skops does not trust", hint=hint)
    ended = f"ended with {code}" if code > 0 else f"was killed by signal {-code}"
    raise UserCodeError(f"{config.entry_point} of {config.project} {ended}", hint=f"its last lines: {tail}")


def _collect(uri: str, run_id: str, code: str, folder: Path) -> tuple[Path, dict[str, float]]:
    """Download the model that a run logged, and return its folder and the run's numbers."""
    with Connection(uri).calls("find the project's model") as client:
        run = client.get_run(run_id)
        found = client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'")
        if len(found) != 1:
            names = " and ".join(sorted(model.name for model in found))
            raise UserCodeError(f"{code} logged {names or 'no model'}", hint='log one model, such as '
                                'mlflow.sklearn.log_model(model, name="model")')  # fmt: skip
        import mlflow.artifacts

        mlflow.artifacts.download_artifacts(
            artifact_uri=found[0].artifact_location, dst_path=str(folder), tracking_uri=uri
        )
    (document,) = sorted(folder.rglob("MLmodel"))[:1] or [folder / "MLmodel"]
    metrics = {name: float(value) for name, value in run.data.metrics.items() if math.isfinite(value)}
    return document.parent, metrics


def load_logged(folder: Path) -> Any:
    """Return a model as its library knows it, which the user's own project logged a moment ago, in this very task.

    Raises:
        UserCodeError: it is of a library that ``train`` cannot keep.
    """
    import importlib

    import yaml

    flavours: dict[str, Any] = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    name = next((name for name in _FLAVOURS if name in flavours), None)
    if name is None:
        raise UserCodeError(
            f"the project logged a model of {', '.join(sorted(flavours))}",
            hint="log it with mlflow.sklearn, mlflow.pytorch or mlflow.onnx",
        )
    if name == "onnx":
        return (folder / flavours["onnx"]["data"]).read_bytes()
    return importlib.import_module(f"mlflow.{name}").load_model(str(folder))
