"""``edgewright bridge``: carry messages from elsewhere to Kafka."""

from __future__ import annotations

import zlib

import click

from edgewright.cli.background import Lines, until_interrupted
from edgewright.cli.output import count, print_json


@click.group("bridge")
def command() -> None:
    """Carry messages from elsewhere to Kafka."""


@command.command("mqtt")
@click.option("--from", "source", default="mqtt://127.0.0.1:1883", show_default=True, metavar="mqtt://HOST:PORT")
@click.option("--topic", "topics", multiple=True, required=True, help="Topic filter; may be given several times.")
@click.option("--to", "target", required=True, metavar="kafka://HOST:PORT/TOPIC", help="Where messages go.")
@click.option("--client-id", help="Name of the session that the MQTT broker keeps. Default: follows from the topics.")
@click.option("--qos", type=click.Choice(["1", "2"]), default="1", show_default=True, help="Quality of service.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def mqtt(source: str, topics: tuple[str, ...], target: str, client_id: str | None, qos: str, as_json: bool) -> None:
    """Carry messages of MQTT topics to a topic of Kafka, at least once, until Ctrl-C.

    A message is acknowledged to the MQTT broker only when Kafka has it. The MQTT topic is the key; the payload stays as
    it is. What comes while the bridge is away waits in the broker's session.
    """
    from edgewright.streams.addresses import kafka_address
    from edgewright.streams.mqtt import Bridge, demand_paho, mqtt_address

    demand_paho()
    lines = Lines()
    broker, kafka = mqtt_address(source), kafka_address(target)
    name = client_id or f"edgewright-{zlib.crc32(' '.join([*sorted(topics), kafka.topic]).encode()):08x}"
    bridge = Bridge(broker, topics, kafka, name, quality=int(qos), say=lines.say)
    click.echo(f"{broker.shown} {' '.join(topics)} -> {kafka.shown} (session {name})", err=True)
    until_interrupted(bridge.run, bridge.stop, "finishing what is under way")
    if as_json:
        print_json(bridge.counts.as_dict())
    else:
        click.echo(f"{count(bridge.counts.delivered, 'message')} carried, {bridge.counts.left_out} left out")
