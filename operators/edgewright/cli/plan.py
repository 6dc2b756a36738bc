"""``edgewright plan``: what changes of pipelines do, against a git revision or a running Airflow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.options import home_option
from edgewright.cli.output import count, print_json
from edgewright.errors import SpecError
from edgewright.spec.diff import Plan, compare
from edgewright.spec.pipeline import Pipeline

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from edgewright.cli.baseline import Baseline, Version

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow"), "same": ("=", None)}
#: Exit code of ``--exit-code`` where something changes.
CHANGED = 3


def complete_against(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete what there is to compare with: an Airflow, and the branches and tags of the repository."""
    from click.shell_completion import CompletionItem

    from edgewright.cli.baseline.git import references

    found = {"airflow": "what the Airflow at hand runs", "HEAD": "the last commit", **references(Path())}
    return [CompletionItem(name, help=text) for name, text in found.items() if name.startswith(incomplete)]


@click.command("plan")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--against", default="HEAD", show_default=True, metavar="WHAT", shell_complete=complete_against,
              help="What runs now: a git revision; airflow, for the local stack or the Airflow of "
                   "EDGEWRIGHT_AIRFLOW_URL; or the address of an Airflow.")  # fmt: skip
@click.option("--exit-code", is_flag=True, help=f"End with {CHANGED} if anything changes, with 0 if nothing does.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@home_option
def command(paths: tuple[Path, ...], against: str, exit_code: bool, as_json: bool, home: Path | None) -> int:
    """Say what the changes below PATHS (default: dags/) do: tasks, schedules, params, steps that must run again.

    Exit codes: 0 done, 1 the files have faults or there is nothing to compare with, 3 something changes (with
    --exit-code), 69 Airflow does not answer.
    """
    from edgewright.spec import check_tree

    roots = list(paths) or [Path("dags")]
    checked = check_tree(roots)
    faults = [fault for _, found in checked if isinstance(found, list) for fault in found]
    if faults:
        raise SpecError(faults)
    new = {path.resolve(): found for path, found in checked if isinstance(found, Pipeline)}
    with _baseline(against, roots, home) as baseline:
        plans = [_plan(baseline.version(path, pipeline), pipeline) for path, pipeline in new.items()]
        plans += [_plan(version, None) for version in baseline.removed(roots, new)]
    if as_json:
        print_json([asdict(plan) for plan in plans])
    else:
        for plan in plans:
            _print(plan)
    return CHANGED if exit_code and any(plan.state != "same" for plan in plans) else 0


def _baseline(against: str, roots: list[Path], home: Path | None) -> Baseline:
    is_address = against.startswith(("http://", "https://"))
    if not is_address and against != "airflow":
        from edgewright.cli.baseline.git import GitRevision

        return GitRevision(roots, against)
    from edgewright.cli.airflow_api import AirflowApi
    from edgewright.cli.baseline.airflow import RunningAirflow
    from edgewright.installation import Installation, find_home

    place = home or find_home()
    api = AirflowApi.local(place, against if is_address else None)
    return RunningAirflow(api, Installation.load({"EDGEWRIGHT_HOME": str(place)} if home else None).store)


def _plan(old: Version | None, new: Pipeline | None) -> Plan:
    from edgewright.cli.baseline import changed_files

    if old is None:
        return compare(None, new)
    files = changed_files(old.pipeline, new) if old.has_files and new is not None else None
    plan = compare(old.pipeline, new, files)
    plan.notes += old.notes
    return plan


# -- for people ----------------------------------------------------------------------------------------------------


def _print(plan: Plan) -> None:
    mark, colour = _MARKS[plan.state]
    click.secho(f"{mark} {plan.dag_id}: {plan.state}", fg=colour, bold=True)
    for note in plan.notes if plan.state != "same" else []:
        click.echo(f"    note: {note}")
    for change in plan.dag:
        click.echo(f"    {change}")
    _print_runs(plan)
    for name in plan.added if plan.state == "changed" else []:
        click.secho(f"  + task {name}", fg="green")
    for name in plan.removed:
        note = " (its history stays, it gets no new runs)" if plan.state == "changed" else ""
        click.secho(f"  - task {name}{note}", fg="red")
    for name, changes in plan.changed.items():
        click.secho(f"  ~ task {name}", fg="yellow")
        for change in changes:
            click.echo(f"      {change}")
    if plan.misses:
        click.echo(f"  {count(len(plan.misses), 'step')} will run again instead of being reused:")
        for name, misses in plan.misses.items():
            reasons = "; ".join(f"{miss.part}: {miss.text}" for miss in misses)
            click.echo(f"      {name}: {reasons}")


def _print_runs(plan: Plan) -> None:
    if plan.next_runs is None or plan.state == "removed":
        return
    for label, times in plan.next_runs.items():
        if label == "before" and plan.state == "added":
            continue
        known = "only Airflow knows" if times is None else ", ".join(times) or "none by time"
        click.echo(f"    next runs {label}: {known}" if plan.state != "added" else f"    next runs: {known}")
