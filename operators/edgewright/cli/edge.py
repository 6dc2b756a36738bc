"""``edgewright edge run``: a node that answers with the newest bundle of its target."""

from __future__ import annotations

import logging
import platform
import re
from pathlib import Path
from typing import Any

import click

from edgewright.errors import ConfigError


@click.group("edge")
def command() -> None:
    """What runs on a node."""


@command.command("run")
@click.option(
    "--source", required=True, help="Where bundles are offered: a folder, s3://BUCKET/PREFIX or oci://HOST/REPOSITORY."
)
@click.option("--target", required=True, help="What this node can run, such as onnx-int8.")
@click.option("--model", help="Registered name; needed where several models are offered.")
@click.option(
    "--version", type=click.IntRange(min=1), help="This version, also where it is older. Default: the newest."
)
@click.option("--key", type=click.Path(path_type=Path), help="Public key that must have signed every bundle.")
@click.option("--home", type=click.Path(path_type=Path), required=True, help="The node's folder.")
@click.option("--name", default=platform.node, help="The node's name. Default: this machine's.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8600, show_default=True, help="0 takes a free one.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Token of callers; needed beyond loopback.")
@click.option("--poll", default=60.0, show_default=True, type=click.FloatRange(min=0.05), help="Seconds between looks.")
@click.option("--mqtt", metavar="mqtt://HOST:PORT", help="Broker for requests and reports.")
@click.option("--kafka", metavar="kafka://HOST:PORT/TOPIC", help="Brokers and topic for reports, in place of MQTT.")
@click.option("--report", default=60.0, show_default=True, type=click.FloatRange(min=0.05), help="Seconds of a report.")
@click.option(
    "--queue", default=16, show_default=True, type=click.IntRange(min=1), help="MiB of reports that may wait."
)
@click.option("--values", type=click.Path(path_type=Path), help="JSON object: the site's own configuration.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when it listens: {url, port, pid}.")
def run(**options: Any) -> None:
    """Take the newest bundle of a target, prove it, and answer with it over HTTP and MQTT until Ctrl-C.

    The source may be away: the node answers on with what it has. A newer bundle is verified and tried before it
    replaces the one that answers, which is kept; a model that fails on requests is given up for the one before.
    """
    try:
        from edgewright.edge.run import Settings
        from edgewright.edge.run import run as run_node
        from edgewright.edge.updates import Wanted
        from edgewright.serving.access import read_token
    except ModuleNotFoundError as error:
        raise ConfigError(f"a node needs {error.name}", hint="pip install 'edgewright[edge]'") from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    name = options["name"]
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ConfigError(f"not a node's name: {name!r}", where="--name", hint="letters, digits, dots, dashes")
    key = options["key"]
    if key is not None and not key.is_file():
        raise ConfigError(f"no such key: {key}", where="--key")
    broker = None
    if options["mqtt"]:
        from edgewright.streams.mqtt import demand_paho, mqtt_address

        demand_paho()
        broker = mqtt_address(options["mqtt"])
    kafka = None
    if options["kafka"]:
        from edgewright.streams.addresses import kafka_address

        kafka = kafka_address(options["kafka"])
    run_node(
        Settings(
            name=name, home=options["home"].resolve(), source=options["source"],
            wanted=Wanted(options["target"], options["model"], options["version"], key),
            host=options["host"], port=options["port"], token=read_token(options["token_file"], "--token-file"),
            poll=options["poll"], mqtt=broker, kafka=kafka, report=options["report"], queue=options["queue"] << 20,
            ready_file=options["ready_file"], values=_read_values(options["values"]),
        )
    )  # fmt: skip


def _read_values(file: Path | None) -> dict[str, Any]:
    """Read the site's own configuration.

    Raises:
        ConfigError: it is no JSON object.
    """
    import json

    if file is None:
        return {}
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", where="--values") from error
    if not isinstance(found, dict):
        raise ConfigError("is no JSON object", where="--values")
    return found
