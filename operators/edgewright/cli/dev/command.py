"""``edgewright dev``: real servers on loopback, in the foreground, for playing and for developing."""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from edgewright.cli.dev.base import Server
from edgewright.cli.output import print_json
from edgewright.cli.stack.signals import interruptible, uninterrupted
from edgewright.errors import Unavailable

#: Every server: ``name: (module:class, usual port, one line for --help)``.
SERVERS: dict[str, tuple[str, int, str]] = {
    "kafka": ("kafka:KafkaServer", 9092, "Apache Kafka 4.3 (KRaft), from Maven Central."),
    "cassandra": ("cassandra:CassandraServer", 9042, "Apache Cassandra 5.0, from Maven Central."),
    "schema-registry": (
        "schema_registry:SchemaRegistryServer",
        8081,
        "A schema registry (Apicurio 3.0, Confluent's interface), from Maven Central.",
    ),
    "s3": ("s3:S3Server", 9000, "An S3 and SQS server (moto); objects live in memory."),
    "postgres": ("postgres:PostgresServer", 5433, "PostgreSQL, as this machine has it installed."),
    "mariadb": ("mariadb:MariaDbServer", 3306, "MariaDB, as this machine has it installed."),
    "mqtt": ("mosquitto:MosquittoServer", 1883, "The Mosquitto MQTT broker, as this machine has it installed."),
}
#: What comes from Maven Central.
FETCHED = ("kafka", "cassandra", "schema-registry")


@click.group("dev")
def command() -> None:
    """Run a real server on loopback, in the foreground, until Ctrl-C. Nothing is shared and nothing is secured."""


@command.command("fetch")
@click.argument("names", nargs=-1, type=click.Choice(FETCHED))
def fetch(names: tuple[str, ...]) -> None:
    """Download the jars of NAMES (default: all), so that servers start without the network."""
    from edgewright.cli.dev.maven import jars

    for name in names or FETCHED:
        click.echo(f"{name}: {jars(name)}")


def open_server(name: str, folder: Path, port: int | None) -> Server:
    """Return a server by its name."""
    module, _, attribute = SERVERS[name][0].partition(":")
    found = getattr(importlib.import_module(f"edgewright.cli.dev.{module}"), attribute)
    server = found(folder, port)
    assert isinstance(server, Server)
    return server


def _foreground(name: str, port: int | None, data: Path | None, as_json: bool) -> None:
    """Run a server until it is told to end, or ends."""
    with interruptible(), _folder(name, data) as folder:
        server = open_server(name, folder, port)
        click.echo(f"{server.name}: starting in {folder}", err=True)
        try:
            server.start()
            described = server.describe()
            if as_json:
                print_json({"server": name, **described, "pid": server.pid, "folder": str(folder)})
            else:
                click.echo("\n".join(f"{key}: {value}" for key, value in described.items()))
                click.echo(f"log: {server.log}\nCtrl-C stops it", err=True)
            code = server.wait()
            raise Unavailable(f"{server.name} ended by itself with status {code}", where=str(server.log))
        except KeyboardInterrupt:
            click.echo(f"{server.name}: stopping", err=True)
        finally:
            with uninterrupted(lambda line: click.echo(line, err=True)):
                server.stop()


@contextlib.contextmanager
def _folder(name: str, data: Path | None) -> Iterator[Path]:
    """Return the folder that was named, or one that goes when the server ends."""
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix=f"edgewright-{name}-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


def _add(name: str, usual: int, line: str) -> None:
    @command.command(name, help=line, short_help=line)
    @click.option("--port", type=click.IntRange(1, 65535), help=f"Port. Default: {usual}, or one that is free.")
    @click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for its data, kept. Default: a temporary one, removed at the end.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document once it answers.")
    def run(port: int | None, data: Path | None, as_json: bool) -> None:
        from edgewright.cli.stack.ports import is_free

        has_been_there = data is not None and (data / "ports.json").exists()
        _foreground(name, port or (usual if is_free(usual) and not has_been_there else None), data, as_json)


for _name, (_, _usual, _line) in SERVERS.items():
    _add(_name, _usual, _line)
