"""``edgewright webhook``: take webhooks of others."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgewright.errors import ConfigError, Unavailable

VARIABLE = "EDGEWRIGHT_WEBHOOK_SECRET"


@click.group("webhook")
def command() -> None:
    """Take webhooks of others."""


@command.command("mlflow")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8600, show_default=True, help="Port; 0: a free one.")
@click.option("--secret-file", type=click.Path(dir_okay=False, path_type=Path), help=f"Default: {VARIABLE}.")
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="Certificate, for https.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its key.")
@click.option("--store", "root", metavar="URI", help="Artifact store. Default: the installation's.")
def mlflow(
    host: str, port: int, secret_file: Path | None, tls_cert: str | None, tls_key: str | None, root: str | None
) -> None:
    """Take MLflow's webhooks: registry triggers with webhook: true look at once, instead of when their time comes.

    A webhook must be signed with the secret that MLflow was given with it, and is only a hint: without this command
    nothing is lost.
    """
    import logging

    import uvicorn

    from edgewright.artifacts import ArtifactStore
    from edgewright.installation import Installation
    from edgewright.streams.webhooks import Hints, build_app

    if bool(tls_cert) != bool(tls_key):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    secret = _secret(secret_file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    hints = Hints(ArtifactStore(root or Installation.load().store), secret)
    config = uvicorn.Config(
        build_app(hints), host=host, port=port, log_config=None, access_log=False, server_header=False, ws="none",
        proxy_headers=False, limit_concurrency=64, timeout_keep_alive=5, timeout_graceful_shutdown=5,
        ssl_certfile=tls_cert, ssl_keyfile=tls_key,
    )  # fmt: skip
    try:
        listening = config.bind_socket()
    except SystemExit as error:  # uvicorn has said why in the log
        raise Unavailable("the port cannot be listened at", where=f"{host}:{port}", hint="--port") from error
    scheme = "https" if tls_cert else "http"
    click.echo(f"takes MLflow's webhooks at {scheme}://{host}:{listening.getsockname()[1]}/ (Ctrl-C ends it)", err=True)
    try:
        uvicorn.Server(config).run([listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
    click.echo(f"{hints.taken} taken, {hints.refused} refused")


def _secret(file: Path | None) -> str:
    """Return the secret.

    Raises:
        ConfigError: there is none, or it is too short to keep anybody out.
    """
    try:
        text = file.read_text() if file else os.environ.get(VARIABLE, "")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    place = str(file) if file else VARIABLE
    if len(text.strip()) < 16:
        wrong = "the secret has fewer than 16 characters" if text.strip() else "there is no secret"
        raise ConfigError(wrong, where=place, hint="openssl rand -hex 32; give MLflow the same with the webhook")
    return text.strip()
