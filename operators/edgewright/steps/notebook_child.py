"""The process that executes a notebook by papermill: ``python -m edgewright.steps.notebook_child JOB``."""

from __future__ import annotations

import json
import logging
import pickle
import re
import sys
from pathlib import Path
from typing import Any

from edgewright.steps.train_notebook import PROGRESS

_CHATTER = ("Executing notebook with kernel", "Input Notebook", "Output Notebook", "Working directory")
_KEEP = """\
from edgewright.steps.notebook_child import keep as _edgewright_keep
_edgewright_keep({returns!r}, globals())
"""


def keep(returns: str, variables: dict[str, Any]) -> None:
    """Write what a notebook made into the output folder; runs in the kernel, as the notebook's last cell.

    Args:
        returns: The variable that holds the model; not looked at where the notebook wrote a model itself.
        variables: The notebook's.

    Raises:
        NameError: there is no such variable.
    """
    import os

    output = Path(os.environ["EDGEWRIGHT_OUTPUT"])
    measured = variables.get("metrics")
    if isinstance(measured, dict) and not (output / "metrics.json").exists():
        numbers = {str(name): float(value) for name, value in measured.items() if _is_number(value)}
        (output / "metrics.json").write_text(json.dumps(numbers))
    if any(output.glob("model.*")):
        return
    if returns not in variables:
        raise NameError(f"name {returns!r} is not defined after the last cell, and there is no model in {output}")
    (output / "model.pkl").write_bytes(pickle.dumps(variables[returns], protocol=5))


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, str)) and float(value) == float(value)
    except (TypeError, ValueError):
        return False


class _Relay(logging.Handler):
    """papermill's log on standard output: what cells print, and a line of progress for each cell."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total = total
        self._done = 0

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Executing Cell"):
            return
        if text.startswith("Ending Cell"):
            self._done += 1
            text = f"{PROGRESS}{min(self._done, self._total)} {self._total}"
        elif text.startswith(_CHATTER):
            return
        print(text.rstrip("\n"), flush=True)


def main(job: Path) -> int:
    """Execute the notebook of a job; a cell that fails is described in the job's report."""
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    told = json.loads(job.read_bytes())
    notebook = nbformat.read(told["notebook"], as_version=4)
    if told["returns"]:
        last = nbformat.v4.new_code_cell(_KEEP.format(returns=told["returns"]))
        last.metadata["tags"] = ["edgewright"]
        notebook.cells.append(last)
    prepared = job.with_name("prepared.ipynb")
    nbformat.write(notebook, prepared)
    log = logging.getLogger("papermill")
    log.setLevel(logging.INFO)
    log.propagate = False
    # one more cell takes the parameters
    log.addHandler(_Relay(len(notebook.cells) + bool(told["parameters"])))
    python = {"kernel_name": "python3"} if told["returns"] else {}
    try:
        papermill.execute_notebook(
            str(prepared), told["executed"], parameters=told["parameters"], cwd=told["cwd"], progress_bar=False,
            log_output=True, kernel_manager_class=_kernel_manager(), **python,
        )  # fmt: skip
    except PapermillExecutionError as error:
        Path(told["report"]).write_text(json.dumps(_failure(error)))
        return 3
    finally:
        _write_page(Path(told["executed"]))
    return 0


def _kernel_manager() -> type[Any]:
    """Return kernels that talk through sockets of the file system: nobody else on the machine can listen or speak."""
    from jupyter_client import AsyncKernelManager

    class Private(AsyncKernelManager):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "transport": "ipc"})

    return Private


def _write_page(executed: Path) -> None:
    """Show the executed notebook as one HTML file that loads nothing from elsewhere."""
    from nbconvert import HTMLExporter

    if executed.is_file():
        exporter = HTMLExporter(embed_images=True, require_js_url="", mathjax_url="", jquery_url="", mermaid_js_url="")
        body, _ = exporter.from_filename(str(executed))
        executed.with_suffix(".html").write_text(body, encoding="utf-8")


def _failure(error: Any) -> dict[str, Any]:
    source = str(error.source)
    begins = next((line for line in source.splitlines() if line.strip()), "")
    return {
        "cell": error.exec_count or error.cell_index,
        "error": f"{error.ename}: {error.evalue}"[:2000],
        "begins": "(Edgewright's own, which keeps the model)" if "_edgewright_keep" in source else begins[:200],
        "trace": _own_lines(error.traceback),
    }


def _own_lines(traceback: list[str]) -> str:
    """Return the line at which a cell failed, out of IPython's coloured traceback."""
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in traceback]
    marked = [
        line for text in plain for line in text.splitlines() if line.startswith("---->") or line.startswith("-->")
    ]
    return re.sub(r"^-+>\s*", "line ", marked[0])[:200] if marked else ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
