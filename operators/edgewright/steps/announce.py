"""``announce:`` of ``publish``: a message to a topic of Kafka, so that apps and nodes need not ask for new versions.

Delivery is at least once: the registry has the version before the message is sent, and what was sent is noted only
when the brokers have it; who is killed in between sends it again. What was announced last is not announced again, so a
run that finds its models published says nothing.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from edgewright.errors import Unavailable
from edgewright.spec.steps.publish import AnnounceConfig
from edgewright.steps.connections import kafka_settings
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.streams.batches import now

_TIMEOUT = 30.0
#: What a version is known by: if one of these is another one than at the last time, there is something to say.
_SAME = ("model", "version", "alias", "digest")


def announce(config: AnnounceConfig, output: StepOutput, context: StepContext) -> None:
    """Say that a version is in the registry.

    Raises:
        ConfigError: there is no such connection.
        Unavailable: the brokers do not take the message; the next try of the task finds the version and sends it.
    """
    message = message_of(output, context)
    key = f"announced/{quote(config.topic, safe='')}/{quote(message['model'], safe='')}.json"
    last = context.store.read_json(key) or {}
    if all(last.get(name) == message[name] for name in _SAME):
        return
    _send(config, message)
    context.store.write_json(key, {name: message[name] for name in _SAME})
    output.notes.append(f"announced to {config.topic}: {message['model']} version {message['version']}")
    context.note("%s", output.notes[-1])


def message_of(output: StepOutput, context: StepContext) -> dict[str, Any]:
    """Return what is sent: the version, whether the alias points to it, its variants and bundles, and the run."""
    tags, identity = output.tags, context.request.identity
    prefix = "bundle."
    return {
        "format": "edgewright.published/1",
        "model": tags["model_name"],
        "version": tags["model_version"],
        "alias": tags.get("alias"),
        "digest": tags["release_digest"],
        "variants": list(output.outputs["release"].meta.get("variants", [])),
        "bundles": {name.removeprefix(prefix): value for name, value in tags.items() if name.startswith(prefix)},
        "dag_id": identity.dag_id,
        "run_id": identity.run_id,
        "time": now(),
    }


def _send(config: AnnounceConfig, message: dict[str, Any]) -> None:
    from confluent_kafka import KafkaException

    from edgewright.streams.kafka import producer

    failed: list[str] = []
    try:
        client = producer(kafka_settings(config.connection))
        client.produce(
            config.topic, json.dumps(message, ensure_ascii=False).encode(), key=message["model"],
            on_delivery=lambda error, _: failed.append(error.str()) if error is not None else None,
        )  # fmt: skip
        late = client.flush(_TIMEOUT)
    except KafkaException as error:
        raise Unavailable(f"the announcement was not taken: {error.args[0]}", where=config.topic) from error
    if late or failed:
        reason = failed[0] if failed else f"no answer of the brokers within {_TIMEOUT:.0f} s"
        raise Unavailable(f"the announcement was not taken: {reason}", where=config.topic,
                          hint="the version is registered; the next try of the task announces it")  # fmt: skip
