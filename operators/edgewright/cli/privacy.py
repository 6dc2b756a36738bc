"""``edgewright privacy``: the key of pseudonyms, and what somebody is called under it."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import click

from edgewright.cli.erase import erase
from edgewright.cli.output import print_json
from edgewright.errors import ConfigError
from edgewright.streams.pseudonyms import KEY_FILE_VARIABLE, Pseudonyms


@click.group("privacy")
def command() -> None:
    """Pseudonyms of people, and erasing what is stored of one; see docs/privacy.md."""


@command.command("key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def key(file: Path) -> None:
    """Make a new key in FILE, readable by its owner only.

    Whoever has it can find out who is meant, and without it nobody can look a person up again: keep it as a secret.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError("there is a file already; another key would give everybody other pseudonyms", where=str(file),
                          hint="name another file") from None  # fmt: skip
    except OSError as error:
        raise ConfigError(f"the key cannot be written: {error.strerror}", where=str(file)) from error
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_hex(32) + "\n")
    click.echo(f"made {file}\nuse it: export {KEY_FILE_VARIABLE}={file.resolve()}")


@command.command("token")
@click.argument("values", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def token(values: tuple[str, ...], as_json: bool) -> None:
    """Print the pseudonyms of VALUES, or of the lines of standard input, which no list of processes shows."""
    pseudonyms = Pseudonyms.load()
    found = [pseudonyms.of(value) for value in values or (line.rstrip("\n") for line in sys.stdin)]
    if as_json:
        print_json({"key_id": pseudonyms.key_id, "pseudonyms": found})
    else:
        click.echo("\n".join(found))


command.add_command(erase)
