"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Home folder. Default: EDGEWRIGHT_HOME, or the nearest .edgewright.",
)
