"""``edgewright plan``: what changes of pipelines do, against a git revision."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from edgewright.cli.output import print_json
from edgewright.errors import ConfigError, SpecError
from edgewright.spec.diff import Plan, compare
from edgewright.spec.pipeline import Pipeline

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow"), "same": ("=", None)}


@click.command("plan")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--against", default="HEAD", show_default=True, help="Git revision that runs now.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(paths: tuple[Path, ...], against: str, as_json: bool) -> None:
    """Say what the changes below PATHS (default: dags/) do: tasks, schedules, params, steps that must run again."""
    from edgewright.spec import check_tree

    roots = list(paths) or [Path("dags")]
    checked = check_tree(roots)
    faults = [fault for _, found in checked if isinstance(found, list) for fault in found]
    if faults:
        raise SpecError(faults)
    repository = _repository(roots[0])
    if _git(repository, "rev-parse", "--verify", f"{against}^{{commit}}") is None:
        raise ConfigError(f"no such revision: {against}", where=str(repository))
    new = {path.resolve(): found for path, found in checked if isinstance(found, Pipeline)}
    plans = [
        compare(_old(repository, against, path), pipeline, _changed_files(repository, against, path))
        for path, pipeline in new.items()
    ]
    plans += _removed(repository, against, roots, set(new))
    if as_json:
        print_json([asdict(plan) for plan in plans])
        return
    for plan in plans:
        _print(plan)


def _git(repository: Path, *arguments: str) -> str | None:
    """Return what git prints, or ``None`` where it fails."""
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout if done.returncode == 0 else None


def _repository(path: Path) -> Path:
    folder = path if path.is_dir() else path.parent
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        raise ConfigError("not in a git repository", where=str(folder), hint="plan compares with a git revision")
    return Path(top.strip())


def _old(repository: Path, revision: str, path: Path) -> Pipeline | None:
    """Return a file's pipeline at a revision, read beside the files that it had then.

    One that did not exist, or was not valid, counts as absent.
    """
    from edgewright.spec import load_pipeline

    place = path.relative_to(repository)
    folder = place.parent.as_posix()
    done = subprocess.run(
        ["git", "-C", str(repository), "archive", "--format=tar", revision, "--", folder],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        return None
    with tempfile.TemporaryDirectory(prefix="edgewright-plan-") as temporary:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
            files.extractall(temporary, filter="data")
        try:
            return load_pipeline(Path(temporary) / place)
        except (SpecError, ConfigError):
            return None


def _changed_files(repository: Path, revision: str, document: Path) -> set[str]:
    """Return the files of a pipeline's folder that differ from a revision, without the document itself."""
    place = document.parent.relative_to(repository).as_posix()
    changed = _git(repository, "diff", "--name-only", revision, "--", place) or ""
    untracked = _git(repository, "ls-files", "--others", "--exclude-standard", "--", place) or ""
    prefix = "" if place == "." else f"{place}/"
    names = {line.removeprefix(prefix) for line in (changed + untracked).splitlines() if line}
    return names - {document.name}


def _removed(repository: Path, revision: str, roots: list[Path], kept: set[Path]) -> list[Plan]:
    places = [root.resolve().relative_to(repository).as_posix() for root in roots]
    listed = _git(repository, "diff", "--name-only", "--diff-filter=D", revision, "--", *places) or ""
    paths = [repository / line for line in listed.splitlines() if line.endswith((".yaml", ".yml"))]
    gone = [_old(repository, revision, path) for path in paths if path.resolve() not in kept]
    return [compare(old, None) for old in gone if old is not None]


def _print(plan: Plan) -> None:
    mark, colour = _MARKS[plan.state]
    click.secho(f"{mark} {plan.dag_id}: {plan.state}", fg=colour, bold=True)
    for change in plan.dag:
        click.echo(f"    {change}")
    for name in plan.added if plan.state == "changed" else []:
        click.secho(f"  + task {name}", fg="green")
    for name in plan.removed:
        note = " (its history stays, it gets no new runs)" if plan.state == "changed" else ""
        click.secho(f"  - task {name}{note}", fg="red")
    for name, changes in plan.changed.items():
        click.secho(f"  ~ task {name}", fg="yellow")
        for change in changes:
            click.echo(f"      {change}")
    if plan.reruns and plan.state != "added":
        click.echo(f"  will run again instead of being reused: {', '.join(plan.reruns)}")
