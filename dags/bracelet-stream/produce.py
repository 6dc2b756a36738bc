"""Send labelled messages to Kafka: ``python produce.py 127.0.0.1:9092 [FILE] [TOPIC]``."""

from __future__ import annotations

import sys
from pathlib import Path

from confluent_kafka import Producer


def main(bootstrap: str, file: str = str(Path(__file__).with_name("messages.jsonl")),
         topic: str = "bracelet-labelled") -> None:  # fmt: skip
    """Send each line as one message."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for line in Path(file).read_text().splitlines():
        producer.produce(topic, line.encode())
    producer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
