"""``edgewright init``: write what an installation needs before its first start."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

import click


def _word() -> str:
    # letters and digits alone: it stands in addresses and in JSON
    return secrets.token_hex(20)


def _fernet() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


#: What docker-compose.yml asks for, and how each is made.
SECRETS: dict[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": _word,
    "MINIO_PASSWORD": _word,
    "AIRFLOW_FERNET_KEY": _fernet,
    "AIRFLOW_SECRET_KEY": lambda: secrets.token_hex(40),
    "AIRFLOW_ADMIN_PASSWORD": lambda: secrets.token_hex(8),
    "AIRFLOW_VIEWER_PASSWORD": lambda: secrets.token_hex(8),
    "SERVING_ADMIN_TOKEN": _word,
    "SERVING_PREDICT_TOKEN": _word,
    "GRAFANA_PASSWORD": lambda: secrets.token_hex(8),
    "JUPYTER_TOKEN": _word,
}


@click.group("init")
def command() -> None:
    """Write what an installation needs before its first start."""


@command.command("compose")
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path), default=Path())
def compose(folder: Path) -> None:
    """Write the passwords of docker-compose.yml into FOLDER/.env, which only you can read.

    What is there already stays: databases keep the password that they were made with.
    """
    from edgewright.cli.output import count
    from edgewright.cli.stack.secrets import write_private

    file = folder / ".env"
    text = file.read_text() if file.is_file() else ""
    given = {line.partition("=")[0].strip() for line in text.splitlines() if line.partition("=")[2].strip()}
    missing = [name for name in SECRETS if name not in given]
    if missing:
        before = "".join(f"{line}\n" for line in text.splitlines() if line.partition("=")[0].strip() not in missing)
        write_private(file, before + "".join(f"{name}={SECRETS[name]()}\n" for name in missing))
        click.echo(f"{file}: {count(len(missing), 'secret')} made, {len(SECRETS) - len(missing)} kept")
    else:
        click.echo(f"{file}: all {len(SECRETS)} secrets are there")
    click.echo("Airflow's login: admin, and AIRFLOW_ADMIN_PASSWORD of that file", err=True)
