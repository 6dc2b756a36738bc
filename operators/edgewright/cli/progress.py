"""How a run goes on, for people: a live line on a terminal, one plain line a task anywhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.output import seconds

if TYPE_CHECKING:
    from edgewright.cli.local import Progress
    from edgewright.cli.outcome import TaskOutcome
    from edgewright.spec.pipeline import Pipeline, Task

COLOURS = {"success": "green", "failed": "red", "skipped": "yellow", "upstream_failed": "magenta"}
WORDS = {"success": "done", "failed": "FAILED", "skipped": "skipped", "upstream_failed": "not run"}


class PlainProgress:
    """One line when a task ends: ``[3/7] model  train  1.2 s  cached``.

    Args:
        pipeline: Whose tasks they are; the columns are as wide as its longest names.
        err: Write on standard error (standard output then holds a JSON document and nothing else).
    """

    def __init__(self, pipeline: Pipeline, *, err: bool = False) -> None:
        self._err = err
        self._id_width = max((len(task.id) for task in pipeline.tasks), default=0)
        self._uses_width = max((len(_short(task.uses)) for task in pipeline.tasks), default=0)

    def label(self, index: int, total: int, task: Task) -> str:
        """Return the start of a task's line."""
        number = f"[{index:>{len(str(total))}}/{total}]"
        return f"{number} {task.id:<{self._id_width}}  {_short(task.uses):<{self._uses_width}}"

    def line(self, index: int, total: int, outcome: TaskOutcome) -> str:
        """Return the whole line of a task that ended."""
        word = "cached" if outcome.cached else WORDS[outcome.state]
        if outcome.state == "success" and outcome.tries > 1:
            word += f" (try {outcome.tries})"
        time = seconds(outcome.duration) if outcome.tries else ""
        colour = "cyan" if outcome.cached and outcome.state == "success" else COLOURS[outcome.state]
        text = f"{self.label(index, total, outcome.task)}  {time:>8}  {click.style(word, fg=colour)}"
        return f"{text}: {outcome.reason}" if outcome.reason else text

    def started(self, index: int, total: int, task: Task) -> None:
        """Say nothing: a plain line is written once."""

    def finished(self, index: int, total: int, outcome: TaskOutcome) -> None:
        """Write the task's line, and its error below."""
        click.echo(self.line(index, total, outcome), err=self._err)
        for instance in outcome.instances:
            click.echo(self._instance_line(instance), err=self._err)
        sys.stdout.flush()

    @staticmethod
    def _instance_line(outcome: TaskOutcome) -> str:
        word = "cached" if outcome.cached and outcome.state == "success" else WORDS[outcome.state]
        time = seconds(outcome.duration) if outcome.tries else ""
        text = f"      [{outcome.index}] {outcome.label:<40} {time:>8}  {click.style(word, fg=COLOURS[outcome.state])}"
        return f"{text}: {outcome.reason}" if outcome.reason else text

    def waiting(self, task: Task, error: Exception, delay: float) -> None:
        """Write why a task is tried again, and when."""
        text = f"      {task.id}: {str(error).splitlines()[0]}; trying again in {seconds(delay)}"
        click.echo(click.style(text, fg="yellow"), err=self._err)


class LiveProgress(PlainProgress):
    """The plain lines, and below them the running task with a clock."""

    def __init__(self, pipeline: Pipeline, *, err: bool = False) -> None:
        super().__init__(pipeline, err=err)
        from rich.console import Console

        self._console = Console(stderr=err, highlight=False)
        self._status: Any = None

    def started(self, index: int, total: int, task: Task) -> None:
        """Show the task with a spinner and the time that it takes."""
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), SpinnerColumn(), TimeElapsedColumn())
        self._status = Progress(*columns, console=self._console, transient=True)
        self._status.add_task(self.label(index, total, task), total=None)
        self._status.start()

    def finished(self, index: int, total: int, outcome: TaskOutcome) -> None:
        """Replace the live line by the plain one."""
        self.close()
        super().finished(index, total, outcome)

    def waiting(self, task: Task, error: Exception, delay: float) -> None:
        """Write why a task is tried again above the live line."""
        text = f"      {task.id}: {str(error).splitlines()[0]}; trying again in {seconds(delay)}"
        self._console.print(text, style="yellow", markup=False)

    def close(self) -> None:
        """Take the live line away, also after an interrupt."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def progress_for(pipeline: Pipeline, *, err: bool) -> Progress:
    """Return the live progress on a terminal, the plain one elsewhere."""
    stream = sys.stderr if err else sys.stdout
    return LiveProgress(pipeline, err=err) if stream.isatty() else PlainProgress(pipeline, err=err)


def _short(uses: str | None) -> str:
    """Return a step's name, or the class of an operator without its module."""
    return "" if uses is None else uses.rpartition(".")[2]
