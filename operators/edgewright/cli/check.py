"""``edgewright check``: every fault of every pipeline at once, for people, editors, CI logs and code scanning."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgewright.errors import Fault
    from edgewright.spec import Pipeline

FORMATS = ("text", "json", "github", "sarif")


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
    help="github: annotations of a pull request; sarif: for code scanning.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--against", metavar="WHERE", help="Ask whether the profiles can be honoured there: docker, kubernetes, "
              "or the path of a kubeconfig.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, paths: tuple[Path, ...], form: str, as_json: bool, against: str | None) -> None:
    """Validate pipelines; every fault at once, with its place.

    PATHS are pipeline files and folders, searched to their ends. Default: dags, or the working directory where there
    is no such folder. Nothing is run and no code of yours is imported. Ends with 1 if there is any fault.

    --against reads what a cluster or an engine has (nodes, quotas, secrets by name, ...), and starts nothing there.
    """
    from edgewright.errors import NotFound
    from edgewright.spec import check_tree

    clock = time.perf_counter()
    places = list(paths) or [Path("dags") if Path("dags").is_dir() else Path()]
    checked = check_tree(places)
    if not checked:
        raise NotFound(
            "no pipelines here", where=", ".join(map(str, places)), hint="a pipeline is a YAML file with a dag_id"
        )
    if any(profile.get("pod") for _, found in checked if not isinstance(found, list)
           for profile in found.profiles.values()):  # fmt: skip
        from edgewright.cli.against import pod_faults

        pod_faults(checked)
    if against is not None:
        from edgewright.cli.against import faults_against

        faults_against(against, checked)
    # what several pipelines inherit is wrong once
    faults = list(dict.fromkeys(fault for _, found in checked if isinstance(found, list) for fault in found))
    _WRITERS["json" if as_json else form](checked, faults, time.perf_counter() - clock)
    ctx.exit(1 if faults else 0)


def _text(checked: list[tuple[Path, Pipeline | list[Fault]]], faults: list[Fault], duration: float) -> None:
    from edgewright.cli.output import count, seconds
    from edgewright.spec import render_faults

    if faults:
        click.echo(render_faults(faults) + "\n")
    good = sum(not isinstance(found, list) for _, found in checked)
    bad = len(checked) - good
    time_text = f"in {seconds(duration)}"
    if bad:
        words = click.style(f"{count(len(faults), 'fault')} in {count(bad, 'pipeline')}", fg="red", bold=True)
        click.echo(f"{words}, {good} without, {time_text}")
    else:
        words = click.style(f"{count(good, 'pipeline')} without faults", fg="green")
        click.echo(f"{words}, {time_text}")


def _json(checked: list[tuple[Path, Pipeline | list[Fault]]], faults: list[Fault], duration: float) -> None:
    from dataclasses import asdict

    from edgewright.cli.output import print_json

    pipelines = []
    for path, found in checked:
        entry: dict[str, Any] = {"file": str(path), "dag_id": None, "tasks": None, "faults": []}
        if isinstance(found, list):
            entry["faults"] = [asdict(fault) for fault in found]
        else:
            entry |= {"dag_id": found.dag_id, "tasks": len(found.tasks)}
        pipelines.append(entry)
    print_json({"faults": len(faults), "duration": round(duration, 4), "pipelines": pipelines})


def _github(checked: list[tuple[Path, Pipeline | list[Fault]]], faults: list[Fault], duration: float) -> None:
    """Write workflow commands, which a pull request shows at the line (GitHub documentation, workflow commands)."""
    for fault in faults:
        place = f"file={_property(fault.file)},line={fault.line},col={fault.column}"
        if fault.end_column:
            place += f",endColumn={fault.end_column}"
        click.echo(f"::error {place},title={_property(fault.code)}::{_data(message_of(fault))}")
    click.echo(f"{len(faults)} faults in {len(checked)} pipelines")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def message_of(fault: Fault) -> str:
    """Return a fault's text without its place in the file, which the format says by itself."""
    return str(fault).removeprefix(f"{fault.file}:{fault.line}:{fault.column}: ")


def _sarif(checked: list[tuple[Path, Pipeline | list[Fault]]], faults: list[Fault], duration: float) -> None:
    from edgewright.cli.output import print_json

    print_json(sarif(faults))


def sarif(faults: list[Fault]) -> dict[str, Any]:
    """Return faults as a SARIF 2.1.0 log (OASIS standard), which code scanning takes."""
    from edgewright import __version__

    codes = sorted({fault.code for fault in faults})
    driver = {"name": "edgewright check", "version": __version__, "rules": [{"id": code} for code in codes]}
    results = []
    for fault in faults:
        region = {"startLine": fault.line, "startColumn": fault.column}
        if fault.end_column:
            region["endColumn"] = fault.end_column
        location = {"artifactLocation": {"uri": Path(fault.file).as_posix()}, "region": region}
        results.append(
            {
                "ruleId": fault.code,
                "ruleIndex": codes.index(fault.code),
                "level": "error",
                "message": {"text": message_of(fault)},
                "locations": [{"physicalLocation": location}],
            }
        )
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }


_WRITERS = {"text": _text, "json": _json, "github": _github, "sarif": _sarif}
