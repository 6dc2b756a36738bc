"""``edgewright up``: start the local stack."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import FrameType

import click

from edgewright.cli.options import home_option
from edgewright.cli.output import print_json
from edgewright.cli.stack.local import LocalStack
from edgewright.cli.stack.state import StackState
from edgewright.installation import find_home


@click.command("up")
@click.option("--dags", type=click.Path(file_okay=False, path_type=Path), default=Path("dags"), show_default=True,
              help="Folder of the pipelines.")  # fmt: skip
@home_option
@click.option("--parallelism", type=click.IntRange(1, 64), default=4, show_default=True, help="Tasks at the same time.")
@click.option("--foreground", is_flag=True, help="Stay, and stop the stack at Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(dags: Path, home: Path | None, parallelism: int, foreground: bool, as_json: bool) -> None:
    """Start Airflow, MLflow and the prediction services on this machine.

    Everything listens on 127.0.0.1 only. A stack that runs already is left alone.
    """
    place = (home or find_home()).resolve()
    stack = LocalStack(place, lambda line: click.echo(line, err=True))
    state = stack.up(dags, parallelism=parallelism)
    if as_json:
        print_json({"home": str(place), "urls": state.urls, "login_file": state.login_file})
    else:
        print_urls(state)
    if foreground:
        wait_for_interrupt()
        click.echo("stopping the stack", err=True)
        stack.down()


def print_urls(state: StackState) -> None:
    """Print where everything is, with the login."""
    passwords = json.loads(Path(state.login_file).read_text())
    for name, url in state.urls.items():
        login = f"   login: admin / {passwords['admin']}" if name == "airflow" else ""
        click.echo(f"{name:<18} {click.style(url, fg='cyan')}{login}")


def wait_for_interrupt() -> None:
    """Return when the user presses Ctrl-C, or when the process is asked to end."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
