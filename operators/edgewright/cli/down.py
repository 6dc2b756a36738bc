"""``edgewright down``: stop the local stack."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.cli.options import home_option
from edgewright.cli.stack.local import LocalStack
from edgewright.installation import find_home


@click.command("down")
@home_option
def command(home: Path | None) -> None:
    """Stop the local stack: only processes that it started, by their PIDs. Data stay."""
    place = (home or find_home()).resolve()
    if LocalStack(place, lambda line: click.echo(line, err=True)).down():
        click.echo("stopped")
    else:
        click.echo(f"no stack runs in {place}")
