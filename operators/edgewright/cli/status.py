"""``edgewright status``: what of the local stack runs, and where."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import psutil

from edgewright.cli.options import home_option
from edgewright.cli.output import print_json, size
from edgewright.cli.stack.health import WORKING, health
from edgewright.cli.stack.state import StackState
from edgewright.cli.up import print_urls
from edgewright.installation import find_home


@click.command("status")
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(home: Path | None, as_json: bool) -> None:
    """Say what of the local stack runs, and where. Exit code 69 where something of it is not healthy."""
    place = (home or find_home()).resolve()
    state = StackState.load(place)
    document = describe(place, state)
    if as_json:
        print_json(document)
    elif state is None:
        click.echo(f"no stack runs in {place}")
    else:
        for part in document["parts"]:
            colour = "green" if part["health"] in WORKING else "red"
            memory = size(part["memory"]) if part["memory"] else ""
            port = part["port"] or ""
            said = click.style(part["health"].ljust(12), fg=colour)
            click.echo(f"{part['name']:<18} {said} {part['pid']:>7} {port:>6} {memory}")
        print_urls(state)
    if state is None or any(part["health"] not in WORKING for part in document["parts"]):
        sys.exit(69)


def describe(home: Path, state: StackState | None) -> dict[str, Any]:
    """Return the state of a home folder's stack as one document."""
    if state is None:
        return {"home": str(home), "running": False, "parts": [], "urls": {}, "login_file": None}
    said = health(state)
    parts = [
        {
            "name": part.name,
            "pid": part.pid,
            "port": part.port,
            "health": said[part.name],
            "memory": _memory(part.process()),
            "log": part.log,
        }
        for part in state.parts
    ]
    return {
        "home": str(home),
        "running": bool(state.running()),
        "dags": state.dags,
        "started": state.started,
        "versions": state.versions,
        "parts": parts,
        "urls": state.urls,
        "login_file": state.login_file,
    }


def _memory(process: psutil.Process | None) -> int | None:
    """Return the memory of a process and its children, shared pages counted once each (PSS) where the system tells."""
    if process is None:
        return None
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            info = member.memory_full_info()
            total += getattr(info, "pss", 0) or info.rss
        except psutil.Error:
            continue
    return total
