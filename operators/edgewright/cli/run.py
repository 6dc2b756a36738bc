"""``edgewright run``: a pipeline here and now, in this process."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from edgewright.cli.outcome import RunOutcome, TaskOutcome
    from edgewright.spec.pipeline import Pipeline


def complete_task(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the tasks of the pipeline that stands on the command line."""
    from click.shell_completion import CompletionItem

    pipeline = _pipeline_of(ctx)
    tasks = pipeline.tasks if pipeline else ()
    return [CompletionItem(task.id, help=task.uses) for task in tasks if task.id.startswith(incomplete)]


def complete_param(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the params of the pipeline that stands on the command line."""
    from click.shell_completion import CompletionItem

    pipeline = _pipeline_of(ctx)
    params = pipeline.params if pipeline else {}
    return [
        CompletionItem(f"{name}=", help=schema.get("description"))
        for name, schema in params.items()
        if name.startswith(incomplete)
    ]


def _pipeline_of(ctx: click.Context) -> Pipeline | None:
    """Return the pipeline that was typed already, if it can be read."""
    from click.shell_completion import split_arg_string

    from edgewright.errors import EdgewrightError
    from edgewright.spec import load_pipeline

    # an option that still lacks its value keeps click from reading what stands before it
    typed = split_arg_string(os.environ.get("COMP_WORDS", ""))[2:]
    file = ctx.params.get("file") or next((word for word in typed if Path(word).exists()), None)
    if not file:
        return None
    with contextlib.suppress(EdgewrightError, OSError):
        return load_pipeline(find_pipeline(Path(file)))
    return None


def find_pipeline(path: Path) -> Path:
    """Return the document that a path means: itself, or ``pipeline.yaml`` of a folder.

    Raises:
        NotFound: there is none.
    """
    from edgewright.errors import NotFound

    if path.is_dir():
        candidates = [path / name for name in ("pipeline.yaml", "pipeline.yml")]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            raise NotFound("the folder has no pipeline.yaml", where=str(path))
        return found
    if not path.exists():
        raise NotFound("no such file", where=str(path), hint="give the path of a pipeline.yaml, or of its folder")
    return path


@click.command("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-p", "--param", "params", multiple=True, metavar="NAME=VALUE", shell_complete=complete_param,
    help="Set a param of the pipeline; may be given several times.",
)  # fmt: skip
@click.option(
    "--until", metavar="TASK", shell_complete=complete_task, help="Run only this task and what it needs."
)  # fmt: skip
@click.option(
    "--skip", multiple=True, metavar="TASK", shell_complete=complete_task,
    help="Leave a task out, and with it what depends on it; may be given several times.",
)  # fmt: skip
@click.option("--no-cache", "cache", flag_value="off", help="Neither use nor keep earlier results.")
@click.option("--refresh", "cache", flag_value="refresh", help="Run everything again and keep the new results.")
@click.option(
    "-e", "--environment", metavar="NAME", help="Which of its environments: it runs in. Default: the installation's."
)
@click.option("--dag-id", metavar="ID", help="Which pipeline, where the file holds several.")
@click.option("--batch", metavar="FILE", help="Take the messages of a file of JSON lines, as a batch of events.")
@click.option("--run-id", metavar="ID", help="Name of the run. Default: local__ and the time.")
@click.option("--store", metavar="URI", help="Artifact store. Default: the installation's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; progress goes to standard error.")
@click.option("-v", "--verbose", is_flag=True, help="Show the log lines of the tasks.")
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    params: tuple[str, ...],
    until: str | None,
    skip: tuple[str, ...],
    cache: Literal["off", "refresh"] | None,
    environment: str | None,
    dag_id: str | None,
    batch: str | None,
    run_id: str | None,
    store: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Run a pipeline here and now, in one process.

    FILE is a pipeline.yaml or its folder. The same steps run as in Airflow and make the same artifacts. Results of
    earlier runs are reused where nothing changed. A task that fails stops what depends on it; the others go on, and
    the command ends with the failing task's exit code.
    """
    from edgewright.cli.local import LocalRunner
    from edgewright.cli.params import read_params
    from edgewright.cli.progress import progress_for
    from edgewright.spec import load_pipeline

    _quiet_libraries(verbose)
    pipeline = load_pipeline(find_pipeline(file), dag_id=dag_id, environment=environment)
    progress = progress_for(pipeline, err=as_json)
    runner = LocalRunner(
        pipeline,
        params=read_params(pipeline.params, params),
        store=store,
        run_id=run_id,
        until=until,
        skip=skip,
        batch=batch,
        cache=cache or "use",
        progress=progress,
    )
    with _interruptible(), _clean_output(as_json):
        try:
            outcome = runner.run()
        finally:
            getattr(progress, "close", lambda: None)()
    _report(outcome, as_json)
    ctx.exit(_exit_code(outcome))


def _quiet_libraries(verbose: bool) -> None:
    """Show warnings, or with ``verbose`` what the tasks log; no library reports its use to anybody."""
    level = "INFO" if verbose or os.environ.get("EDGEWRIGHT_DEBUG", "") not in ("", "0") else "WARNING"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", level)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="      %(message)s")
    logging.getLogger("edgewright").setLevel(level)
    logging.getLogger("edgewright.steps.waiting").setLevel("INFO")  # nobody looks at a silent terminal for an hour


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C: tasks clean up behind themselves."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _clean_output(as_json: bool) -> Iterator[None]:
    """With ``--json``, send what tasks and their subprocesses print to standard error."""
    if not as_json:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)  # what a child process or a C library prints knows nothing of sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _report(outcome: RunOutcome, as_json: bool) -> None:
    from edgewright.cli.output import print_json
    from edgewright.cli.summary import summarize, summary_text

    summary = summarize(outcome.results)
    summary["notes"] += [{"task": task, "text": text} for task, text in outcome.chosen.items()]
    if as_json:
        document = {
            "dag_id": outcome.dag_id,
            "run_id": outcome.run_id,
            "state": outcome.state,
            "params": outcome.params,
            "duration": round(outcome.duration, 4),
            "tasks": [task.document() for task in outcome.tasks],
            "summary": summary,
        }
        print_json(document)
    else:
        click.echo("\n" + summary_text(summary, run_line(outcome)))
    for failed in outcome.failed:
        for one in failed.instances or [failed]:
            _report_failure(one)


def _report_failure(failed: TaskOutcome) -> None:
    """Print why a task failed; what an operator raised is between its author and the user."""
    from edgewright.cli.main import debug_wanted
    from edgewright.cli.output import echo_error, report_error
    from edgewright.errors import EdgewrightError

    error, prefix = failed.error, f"\ntask {failed.name}: "
    if error is None:
        return
    if failed.task.is_step or isinstance(error, EdgewrightError) or debug_wanted():
        report_error(error, debug=debug_wanted(), prefix=prefix)
    else:
        echo_error(f"{prefix}{click.style('error:', fg='red', bold=True)} {type(error).__name__}: {error}")


def run_line(outcome: RunOutcome) -> str:
    """Return the run in one line: its name, its tasks by state, its time."""
    from edgewright.cli.output import seconds

    states = [task.state for task in outcome.tasks]
    words = [f"{states.count('success')} of {len(states)} tasks done"]
    cached = sum(task.cached for task in outcome.tasks if task.state == "success")
    words += [f"{cached} reused from earlier runs"] if cached else []
    words += [f"{states.count('failed')} failed"] if outcome.failed else []
    words += [f"{states.count('skipped')} skipped"] if "skipped" in states else []
    words += [f"{states.count('upstream_failed')} not run"] if "upstream_failed" in states else []
    return f"{outcome.dag_id}  {outcome.run_id}: {', '.join(words)}, in {seconds(outcome.duration)}"


def _exit_code(outcome: RunOutcome) -> int:
    """Return the first failure's exit code; an operator's own exception is the user's matter."""
    from edgewright.errors import EdgewrightError

    if not outcome.failed:
        return 0
    first = outcome.failed[0]
    if isinstance(first.error, EdgewrightError):
        return first.error.exit_code
    return 70 if first.task.is_step else 1
