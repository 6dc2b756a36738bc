"""Training by a notebook or a script: it runs in a process and a folder of its own, and leaves a model behind.

The contract, for any language: ``EDGEWRIGHT_INPUT`` is a folder with ``train.parquet`` and what ``inputs:`` asks for,
``EDGEWRIGHT_OUTPUT`` takes ``model.onnx`` (any language) or ``model.pkl`` or ``model.joblib`` (Python),
``metrics.json`` (numbers by name) and whatever else shall be kept. ``EDGEWRIGHT_ARGS`` is a JSON file.
docs/notebooks.md has it in full.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.artifacts.digest import list_files
from edgewright.errors import ConfigError, EdgewrightError, UserCodeError
from edgewright.spec.steps.train import TrainConfig
from edgewright.steps import checkpoints
from edgewright.steps.code import OUTPUT_LIMIT
from edgewright.steps.context import StepContext
from edgewright.steps.data import Dataset
from edgewright.steps.options import options
from edgewright.steps.programs import Program
from edgewright.steps.tracking import TrackedRun
from edgewright.steps.train_inputs import lay_out
from edgewright.steps.warm_start import Loaded

if TYPE_CHECKING:
    from edgewright.steps.train_notebook import Execution

log = logging.getLogger("edgewright.steps")

#: Files that hold the model, the first that is there.
MODELS = ("model.onnx", "model.pkl", "model.joblib")
METRICS = "metrics.json"
#: The executed notebook as a page.
PAGE = "report.html"
_INTERPRETERS = {
    ".py": [sys.executable],
    ".r": ["Rscript"],
    ".sh": ["bash"],
    ".jl": ["julia"],
    ".js": ["node"],
    ".pl": ["perl"],
    ".rb": ["ruby"],
}


@dataclass
class Workplace:
    """The folders of one run: ``work`` (linked to the pipeline's files), ``input``, ``output``.

    Attributes:
        env: The program's environment.
        values: ``args`` and the paths of ``inputs``, by name.
    """

    work: Path
    output: Path
    env: dict[str, str]
    values: dict[str, Any]


@dataclass
class Produced:
    """What a program left behind.

    Attributes:
        file: The model.
        metrics: Numbers that the program measured itself.
        kept: Folder with everything that it wrote beside the model, and the executed notebook.
    """

    file: Path
    metrics: dict[str, float] = field(default_factory=dict)
    kept: Path | None = None


def run_program(
    config: TrainConfig,
    context: StepContext,
    dataset: Dataset,
    tracked: TrackedRun,
    start: Loaded | None = None,
    kept: checkpoints.Checkpoints | None = None,
    *,
    follows: bool = False,
) -> Produced | None:
    """Run the notebook or the script of a configuration; a node that only follows leaves nothing.

    Raises:
        ConfigError: the program, its interpreter or the notebook's parameters are not there.
        UserCodeError: it failed, or left no model.
    """
    place = _workplace(config, context, dataset, tracked)
    if start is not None and start.file is not None:
        place.env["EDGEWRIGHT_WARM_START"] = str(start.file)
    if kept is not None:
        place.env[checkpoints.VARIABLE] = str(kept.folder)
    if config.project is not None:
        from edgewright.steps.train_project import execute_project

        return execute_project(config, place, context, tracked, follows=follows)
    if config.notebook is not None:
        from edgewright.steps.train_notebook import execute

        _keep_notebook(execute(config, place, context), place.output, tracked)
    else:
        _run_script(config, place, kept)
    if follows:
        return None
    left = _model_file(config, place.output)
    file = left.rename(context.scratch / left.name)
    metrics = _metrics(place.output / METRICS, config.code)
    (place.output / METRICS).unlink(missing_ok=True)
    return Produced(file, metrics, place.output if list_files(place.output) else None)


# -- before ------------------------------------------------------------------------------------------------------------


def _workplace(config: TrainConfig, context: StepContext, dataset: Dataset, tracked: TrackedRun) -> Workplace:
    work, given, output = context.folder("work"), context.folder("input"), context.folder("output")
    _link(context.source_folder, work)
    paths = lay_out(dataset, given, config.inputs)
    values = {**json.loads(json.dumps(config.args)), **{name: str(path) for name, path in paths.items()}}
    file = context.scratch / "args.json"
    file.write_text(json.dumps(values))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "_AIRFLOW"))}
    env |= {
        "EDGEWRIGHT_INPUT": str(given),
        "EDGEWRIGHT_OUTPUT": str(output),
        "EDGEWRIGHT_ARGS": str(file),
        "EDGEWRIGHT_SEED": str(config.seed),
        "EDGEWRIGHT_LABEL": dataset.label or "",
        "EDGEWRIGHT_PROBLEM": dataset.problem if config.problem == "auto" else config.problem,
        "EDGEWRIGHT_FEATURES": json.dumps(dataset.features),
        # the same program gives the same model, whatever the order of sets
        "PYTHONHASHSEED": str(config.seed % 2**32),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if tracked.run_id:
        env |= {"MLFLOW_TRACKING_URI": context.request.tracking_uri, "MLFLOW_RUN_ID": tracked.run_id}
    return Workplace(work, output, env, values)


def _link(source: Path, work: Path) -> None:
    """Show the pipeline's files in another folder: what a program writes beside them leaves no trace in the source."""
    for name in list_files(source):
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).stat().st_size <= OUTPUT_LIMIT:
            shutil.copyfile(source / name, target)
        else:
            target.symlink_to(source / name)


# -- a script ----------------------------------------------------------------------------------------------------------


def _run_script(config: TrainConfig, place: Workplace, kept: checkpoints.Checkpoints | None) -> None:
    script = place.work / str(config.script)
    if not script.is_file():
        raise ConfigError(f"no such file: {config.script}", hint="paths are relative to the pipeline's folder")
    command = [*_interpreter(config), str(script), *options(place.values)]
    lines = Lines(config.code)
    program = Program(command, place.env, place.work)
    try:
        code = program.run(lines)
    except FileNotFoundError:
        raise ConfigError(
            f"{config.script} needs {command[0]}, which is not installed here",
            hint="install it, use a profile whose image has it, or name another interpreter:",
        ) from None
    finally:
        if kept is not None:
            kept.whole = program.ended_by_itself
    lines.close()
    if code != 0:
        ended = f"ended with {code}" if code > 0 else f"was killed by signal {-code}"
        raise UserCodeError(f"{config.script} {ended}", hint=f"its last lines: {lines.tail()}")


def _interpreter(config: TrainConfig) -> list[str]:
    if config.interpreter:
        return config.interpreter
    ending = Path(str(config.script)).suffix.lower()
    if ending not in _INTERPRETERS:
        raise ConfigError(
            f"nobody knows what runs {config.script}",
            hint=f"say interpreter: [PROGRAM], or use one of {', '.join(sorted(_INTERPRETERS))}",
        )
    return _INTERPRETERS[ending]


class Lines:
    """Passes a program's lines to the log, up to a limit, and remembers the last ones."""

    def __init__(self, what: str, limit: int = OUTPUT_LIMIT) -> None:
        self._what = what
        self._left = limit
        self._dropped = 0
        self._last: list[str] = []

    def __call__(self, line: str) -> None:
        """Take one line."""
        text = line.rstrip("\r\n")[:8192]
        if text.strip():
            self._last = [*self._last, text.strip()][-5:]
        if self._left > 0:
            log.info("%s", text)
        else:
            self._dropped += len(line)
        self._left -= len(line)

    def close(self) -> None:
        """Say how much was left out."""
        if self._dropped:
            log.warning(
                "%s more characters of %s dropped; write large output to a file", f"{self._dropped:,}", self._what
            )

    def tail(self) -> str:
        """The last lines in one."""
        return " | ".join(self._last) or "it wrote nothing"


# -- after -------------------------------------------------------------------------------------------------------------


def _model_file(config: TrainConfig, output: Path) -> Path:
    found = [output / name for name in MODELS if (output / name).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(file.name for file in found)
        raise UserCodeError(f"{config.code} left {names}", hint="leave one model")
    here = ", ".join(list_files(output)) or "nothing"
    raise UserCodeError(
        f"{config.code} left no model; it left {here}",
        hint="write model.onnx, model.pkl or model.joblib into the folder that $EDGEWRIGHT_OUTPUT names",
    )


def _metrics(file: Path, code: str) -> dict[str, float]:
    if not file.is_file():
        return {}
    wanted = 'a mapping of names to numbers: {"val_loss": 0.12}'
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserCodeError(f"the {METRICS} of {code} is no JSON: {error}", hint=f"write {wanted}") from None
    numbers = isinstance(found, dict) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in found.values()
    )
    if not numbers:
        raise UserCodeError(f"the {METRICS} of {code} holds something else than numbers", hint=f"write {wanted}")
    return {str(name): float(value) for name, value in found.items() if math.isfinite(value)}


def load_file(file: Path, code: str) -> Any:
    """Return the model in a file that the user's own program wrote a moment ago, in this very task.

    Raises:
        UserCodeError: it cannot be loaded.
    """
    try:
        if file.is_dir():
            from edgewright.steps.train_project import load_logged

            return load_logged(file)
        return file.read_bytes() if file.suffix == ".onnx" else _unpickled(file)
    except EdgewrightError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise UserCodeError(
            f"the {file.name} of {code} cannot be loaded: {type(error).__name__}: {error}",
            hint="classes and functions in it must stand in a module beside the program, not in the program itself",
        ) from error


def _unpickled(file: Path) -> Any:
    if file.suffix == ".joblib":
        import joblib

        return joblib.load(file)
    import pickle

    with file.open("rb") as opened:
        return pickle.load(opened)  # noqa: S301 (the user's own program wrote it in this task)


def _keep_notebook(execution: Execution, output: Path, tracked: TrackedRun) -> None:
    """Keep the executed notebook with MLflow, also when a cell failed."""
    for file, name in ((execution.notebook, execution.name), (execution.page, PAGE)):
        if file.is_file():
            shutil.copyfile(file, output / name)
            tracked.log_file(file, "notebook")
    execution.raise_failure()
