"""``edgewright up``: start the local stack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click

from edgewright.cli.options import home_option
from edgewright.cli.output import print_json, seconds
from edgewright.cli.stack.health import PartFailed
from edgewright.cli.stack.local import LocalStack
from edgewright.cli.stack.signals import interruptible
from edgewright.cli.stack.state import Running, StackState
from edgewright.installation import find_home

_LOOK = 2.0


@click.command("up")
@click.option("--dags", type=click.Path(file_okay=False, path_type=Path), default=Path("dags"), show_default=True,
              help="Folder of the pipelines.")  # fmt: skip
@home_option
@click.option("--service", "asked", multiple=True, metavar="NAME",
              help="Start this prediction service too; may be given several times. Those that pipelines deploy to are "
              "started anyway.")  # fmt: skip
@click.option("--parallelism", type=click.IntRange(1, 64), default=4, show_default=True, help="Tasks at the same time.")
@click.option("--schedules/--no-schedules", default=True, show_default=True, help="Start runs by their schedules.")
@click.option("--foreground", is_flag=True, help="Stay, and stop the stack at Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    dags: Path,
    home: Path | None,
    asked: tuple[str, ...],
    parallelism: int,
    schedules: bool,
    foreground: bool,
    as_json: bool,
) -> None:
    """Start Airflow, MLflow and the prediction services on this machine.

    Everything listens on 127.0.0.1 only. A stack that runs already is left alone.
    """
    place = (home or find_home()).resolve()
    stack = LocalStack(place, lambda line: click.echo(line, err=True))
    began = time.monotonic()
    with interruptible():
        owner = Running.me() if foreground else None
        started = stack.up(dags, asked=asked, parallelism=parallelism, schedules=schedules, owner=owner)
        state = started.state
        if started.new:
            click.echo(f"up after {seconds(time.monotonic() - began)}", err=True)
        else:
            click.echo("the stack is up already", err=True)
        if as_json:
            print_json({"home": str(place), "new": started.new, "urls": state.urls, "login_file": state.login_file})
        else:
            print_urls(state)
        if foreground and started.new:
            _stay(stack, state)


def _stay(stack: LocalStack, state: StackState) -> None:
    try:
        watch(state)
    except KeyboardInterrupt:
        click.echo("", err=True)
    finally:
        stack.down()


def watch(state: StackState, say: Callable[[str], None] = lambda line: None) -> None:
    """Return when the stack was stopped by somebody else; until then wait for Ctrl-C.

    Raises:
        PartFailed: a part of it ended; shows the end of its log.
        KeyboardInterrupt: the user wants it to end.
    """
    while True:
        time.sleep(_LOOK)
        gone = [part for part in state.parts if part.process() is None]
        now = StackState.load(Path(state.home))
        if now is None or now.stopping or now.started != state.started:
            say("the stack was stopped")
            return
        if gone:
            raise PartFailed(gone[0], "ended")


def print_urls(state: StackState) -> None:
    """Print where everything is, with the login."""
    passwords = json.loads(Path(state.login_file).read_text())
    for name, url in state.urls.items():
        login = f"   login: admin / {passwords['admin']}" if name == "airflow" else ""
        click.echo(f"{name:<18} {click.style(url, fg='cyan')}{login}")
