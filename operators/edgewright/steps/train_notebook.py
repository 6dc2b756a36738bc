"""Executes a notebook by papermill, in a process of its own: parameters in, the executed notebook and a model out."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import ConfigError, UserCodeError
from edgewright.spec.notebooks import NotANotebook, Notebook, notebook_faults, read_notebook
from edgewright.spec.steps.train import TrainConfig
from edgewright.steps.programs import Program

if TYPE_CHECKING:
    from edgewright.steps.context import StepContext
    from edgewright.steps.train_program import Workplace

_NEEDED = ("papermill", "ipykernel", "nbconvert")
#: How the child begins a line that is progress: cells done, cells in all.
PROGRESS = "edgewright-cell "


@dataclass(frozen=True)
class Execution:
    """One execution of a notebook.

    Attributes:
        name: The notebook's file name.
        notebook: The executed notebook.
        failure: What the child found wrong; ``None`` if all cells ran.
    """

    name: str
    notebook: Path
    failure: dict[str, Any] | None

    @property
    def page(self) -> Path:
        """The executed notebook as a page."""
        return self.notebook.with_suffix(".html")

    def raise_failure(self) -> None:
        """Raise what went wrong in a cell.

        Raises:
            UserCodeError: names the cell, its line and the error.
        """
        if self.failure is None:
            return
        found = self.failure
        raise UserCodeError(
            f"{self.name} failed in cell [{found['cell']}]: {found['error']}",
            hint=f"{found['trace'] or 'the cell begins: ' + found['begins']}; the executed notebook is kept with the "
            "MLflow run",
        )


def execute(config: TrainConfig, place: Workplace, context: StepContext) -> Execution:
    """Run a notebook from its first cell to its last, and keep what its variable ``returns`` holds.

    Raises:
        ConfigError: papermill is not installed, the file is no notebook, or it does not declare a parameter.
        UserCodeError: its kernel died.
    """
    from edgewright.steps.train_program import Lines

    name = str(config.notebook)
    _check_installed()
    notebook = _read(place.work / name, name)
    check_parameters(config, notebook)
    executed = context.folder("executed") / Path(name).name
    report = executed.with_name("failure.json")
    job = executed.with_name("job.json")
    job.write_text(json.dumps({
        "notebook": str(place.work / name), "executed": str(executed), "report": str(report), "cwd": str(place.work),
        "parameters": place.values, "returns": config.returns if notebook.language == "python" else "",
    }))  # fmt: skip
    lines = Lines(name)

    def on_line(line: str) -> None:
        if line.startswith(PROGRESS):
            done, total = map(int, line[len(PROGRESS) :].split())
            context.progress("cells", done, total)
        else:
            lines(line)

    # IPython's history, the kernel's sockets and the like stay in the scratch folder
    private = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "run", "JUPYTER_CONFIG_DIR": "jupyter"}
    env = {**place.env, **{name: str(context.folder(folder)) for name, folder in private.items()}}
    env["JUPYTER_PLATFORM_DIRS"] = "1"
    code = Program([sys.executable, "-m", "edgewright.steps.notebook_child", str(job)], env, place.work).run(on_line)
    lines.close()
    if code != 0 and not report.is_file():
        ended = f"ended with {code}" if code > 0 else f"was killed by signal {-code}"
        raise UserCodeError(f"the kernel of {name} {ended}", hint=f"its last lines: {lines.tail()}")
    failure = json.loads(report.read_bytes()) if report.is_file() else None
    return Execution(Path(name).name, executed, failure)


def _check_installed() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"a notebook needs {' and '.join(missing)}, which this environment lacks",
            hint="pip install 'edgewright[notebook]'",
        )


def _read(path: Path, name: str) -> Notebook:
    if not path.is_file():
        raise ConfigError(f"no such file: {name}", hint="paths are relative to the pipeline's folder")
    try:
        return read_notebook(path)
    except NotANotebook as error:
        raise ConfigError(f"{name} is no notebook: {error}") from None


def check_parameters(config: TrainConfig, notebook: Notebook) -> None:
    """Check that a notebook does what its task says; else its own values would win, silently.

    Raises:
        ConfigError: with every fault at once.
    """
    found = notebook_faults(str(config.notebook), notebook, config.args, config.inputs, config.returns)
    if found:
        raise ConfigError("; ".join(fault.message for fault in found), hint=found[0].allowed)
