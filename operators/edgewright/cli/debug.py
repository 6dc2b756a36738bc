"""``edgewright debug``: the request that a task of a run was given, answered here, with its real inputs."""

from __future__ import annotations

import datetime
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.why import complete_run, complete_task
from edgewright.errors import ConfigError, EdgewrightError, NotFound, Skipped

if TYPE_CHECKING:
    from edgewright.artifacts import ArtifactStore
    from edgewright.steps.contract import StepRequest, StepResult


@click.command("debug")
@click.argument("run", shell_complete=complete_run)
@click.argument("task", shell_complete=complete_task)
@click.option("--pdb", is_flag=True, help="Stop in the debugger where it fails, in your own code.")
@click.option("--code", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER",
              help="Take the code of this folder instead of that of the run.")  # fmt: skip
@click.option("--tracking", is_flag=True, help="Ask MLflow too, and leave a run in it.")
@click.option("--act", is_flag=True, help="Also run a step that acts on the world, such as publish.")
@click.option("--dag", metavar="DAG_ID", help="The pipeline, where several have such a run.")
@click.option("--store", metavar="URI", help="Artifact store. Default: the installation's.")
def command(
    run: str, task: str, pdb: bool, code: Path | None, tracking: bool, act: bool, dag: str | None, store: str | None
) -> None:
    """Answer again, here, what a task of a run was asked: in a pod, in a container or in a worker.

    The request, the inputs and the code are those of the run, from the artifact store. The run's own result stays as it
    is: this one is kept under a run called debug__TIME. The cache is not used.
    """
    from edgewright.artifacts import ArtifactStore
    from edgewright.installation import Installation

    found = ArtifactStore(store or Installation.load().store)
    request, before = _asked(found, run, task, dag)
    request = _here(request, found, code, tracking=tracking)
    _check(request, act=act, pdb=pdb)
    click.echo(f"{request.step} as in run {before.identity.run_id}, which ended: {_ending(before)}", err=True)
    click.echo(f"code: {request.source.folder if request.source else 'none'}", err=True)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if not pdb:
        click.echo(_text(_answer(request, found), found))
        return
    try:
        result = _answer(request, found)
    except EdgewrightError as error:
        _post_mortem(error)
        raise
    click.echo(_text(result, found))


def _asked(store: ArtifactStore, run: str, task: str, dag: str | None) -> tuple[StepRequest, StepResult]:
    """Return what a task was asked, and what came of it.

    Raises:
        NotFound: there is no such task, or no request of it.
    """
    from edgewright.cli.runs import find_task_run, list_task_runs
    from edgewright.steps.contract import StepRequest, StepResult

    found = find_task_run(list_task_runs(store, dag, "request"), store, run, task)
    document = found.read(store, "request")
    if not document:
        raise NotFound(f"the request of {task} is not in the store", where=f"{store.root}/{found.folder}")
    request = StepRequest.model_validate(document)
    result = found.read(store, "result") or {"step": request.step, "identity": request.identity, "state": "failed",
                                             "notes": ["without a result"]}  # fmt: skip
    return request, StepResult.model_validate(result)


def _here(request: StepRequest, store: ArtifactStore, code: Path | None, *, tracking: bool) -> StepRequest:
    """Return the request as this machine can answer it, under a name of its own.

    Raises:
        ConfigError: the code is not here.
    """
    from edgewright.steps.snapshot import unpacked

    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    identity = request.identity.model_copy(update={"run_id": f"debug__{moment}", "try_number": 1})
    given: dict[str, Any] = {"identity": identity, "store": store.root, "cache": "off"}
    if not tracking:
        given["tracking_uri"] = ""
    if code is not None and request.source is not None:
        given["source"] = request.source.model_copy(update={"folder": str(code.resolve()), "code": None})
    request = unpacked(request.model_copy(update=given))
    if request.source is not None and not Path(request.source.folder).is_dir():
        raise ConfigError(f"the code of the run is not on this machine: {request.source.folder}",
                          hint="say where it is: --code FOLDER")  # fmt: skip
    return request


def _check(request: StepRequest, *, act: bool, pdb: bool) -> None:
    from edgewright.steps.execute import step_spec

    if not step_spec(request.step).cached and not act:
        raise ConfigError(f"{request.step} acts on the world, and would do it again", hint="--act, if that is wanted")
    program = request.config.get("script") or request.config.get("notebook")
    if pdb and program:
        raise ConfigError(f"{program} runs in a process of its own, which --pdb does not reach",
                          hint="run it without --pdb: its lines are shown")  # fmt: skip


def _answer(request: StepRequest, store: ArtifactStore) -> StepResult:
    from edgewright.steps.execute import execute

    return execute(request, store=store)


def _post_mortem(error: EdgewrightError) -> None:
    """Open the debugger where the user's own code failed, or where we found out."""
    import pdb

    if isinstance(error, Skipped):
        return
    first: BaseException = error.__cause__ or error
    click.echo(f"{type(error).__name__}: {error}", err=True)
    pdb.post_mortem(first.__traceback__)


def _ending(result: StepResult) -> str:
    if result.error is not None:
        return f"{result.state}, {result.error.type}: {result.error.message.splitlines()[0]}"
    return " ".join([result.state, *(note for note in result.notes if note == "without a result")])


def _text(result: StepResult, store: ArtifactStore) -> str:
    lines = [f"{result.step}: {result.state} in {result.duration:.1f} s"]
    lines += [f"  {name} = {value:.6g}" for name, value in sorted(result.metrics.items())]
    for name, ref in result.outputs.items():
        lines.append(f"  {name}: {os.fspath(store.fetch(ref))}")
    return "\n".join([*lines, *(f"  {note}" for note in result.notes)])
