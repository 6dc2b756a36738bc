"""Runs a node until it is told to stop."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from edgewright.edge.messages import Line
from edgewright.edge.node import Node
from edgewright.edge.reports import KafkaReports, Reports, Sender
from edgewright.edge.server import build_app
from edgewright.edge.shelf import Shelf
from edgewright.edge.sources import open_source
from edgewright.edge.updates import Updater, Wanted
from edgewright.errors import Busy, ConfigError, Unavailable
from edgewright.serving.access import Access, is_loopback
from edgewright.streams.addresses import KafkaAddress
from edgewright.streams.mqtt import MqttAddress

log = logging.getLogger(__name__)
_GRACE = 15


@dataclass(frozen=True)
class Settings:
    """How a node runs.

    Attributes:
        name: The node's name.
        home: Its folder.
        source: Where bundles are offered.
        wanted: Which bundle it wants.
        host: Address that it listens on.
        port: Port; 0 takes a free one.
        token: What callers must send where the address is not loopback.
        poll: Seconds between two looks at the source.
        mqtt: Broker for requests, and for reports unless Kafka gets them.
        kafka: Brokers and topic for reports.
        report: Seconds between two reports.
        queue: Bytes of reports that may wait on disk.
        ready_file: Written when it listens.
        values: The site's own configuration.
    """

    name: str
    home: Path
    source: str
    wanted: Wanted
    host: str = "127.0.0.1"
    port: int = 8600
    token: str | None = None
    poll: float = 60.0
    mqtt: MqttAddress | None = None
    kafka: KafkaAddress | None = None
    report: float = 60.0
    queue: int = 16 << 20
    ready_file: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)


def run(settings: Settings) -> None:
    """Run a node in this process, until SIGTERM or SIGINT.

    Raises:
        ConfigError: the settings cannot be used.
        Busy: another node uses the folder.
        StoreError: the folder cannot be used.
        Unavailable: the port is taken.
    """
    access = Access(admin_token=settings.token, loopback=is_loopback(settings.host) and settings.token is None)
    source = open_source(settings.source)
    with _own(settings.home):
        shelf = Shelf(settings.home)
        node = Node(settings.name, shelf, Updater(shelf, source, settings.wanted), values=settings.values)
        with _listening(settings.host, settings.port) as listening, _background(node, settings):
            _serve(node, access, settings, listening)


def _serve(node: Node, access: Access, settings: Settings, listening: socket.socket) -> None:
    config = uvicorn.Config(
        build_app(node, access), lifespan="off", log_config=None, log_level="warning", access_log=False,
        server_header=False, timeout_graceful_shutdown=_GRACE, ws="none", proxy_headers=False,
    )  # fmt: skip
    # uvicorn raises a signal again once it has stopped; the threads here are still to be ended
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    host, port = listening.getsockname()[:2]
    log.info("node %s answers on http://%s:%s", node.name, host, port)
    if settings.ready_file is not None:
        temporary = settings.ready_file.with_name(f".tmp-{settings.ready_file.name}")
        temporary.write_text(json.dumps({"url": f"http://{host}:{port}", "port": port, "pid": os.getpid()}))
        temporary.replace(settings.ready_file)
    uvicorn.Server(config).run([listening])


@contextlib.contextmanager
def _background(node: Node, settings: Settings) -> Iterator[None]:
    """Look for updates and send reports meanwhile."""
    stopping = threading.Event()
    lines: list[Line | Sender] = []
    tell: Callable[[], None] = lambda: None  # noqa: E731
    threads = []
    if settings.mqtt is not None or settings.kafka is not None:
        reports = Reports(settings.home / "reports", settings.queue)
        lines = _lines(node, settings, reports)
        for line in lines:
            line.start()

        def tell() -> None:
            reports.add(node.report())

        threads.append(threading.Thread(target=_repeat, args=(stopping, settings.report, tell), daemon=True))
    threads.append(threading.Thread(target=node.poll, args=(stopping, settings.poll, tell), daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(_GRACE)
        for line in lines:
            line.close()


def _lines(node: Node, settings: Settings, reports: Reports) -> list[Line | Sender]:
    """Return what carries requests and reports; Kafka takes the reports where both are named."""
    lines: list[Line | Sender] = []
    if settings.kafka is not None:
        sender = Sender(reports, KafkaReports(settings.kafka, node.name).deliver)
        sender.connected.set()  # Kafka's client connects by itself
        lines.append(sender)
    if settings.mqtt is not None:
        lines.append(Line(settings.mqtt, node, None if settings.kafka is not None else reports))
    return lines


def _repeat(stopping: threading.Event, seconds: float, call: Callable[[], None]) -> None:
    while not stopping.wait(seconds):
        call()


@contextlib.contextmanager
def _own(home: Path) -> Iterator[None]:
    """Hold the folder: two nodes in one would overwrite each other's state."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = (home / "node.lock").open("a")
    except OSError as error:
        raise ConfigError(f"the folder cannot be used: {error}", where="--home") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy("another node uses this folder", where=str(home), hint="give it another --home") from error
        yield


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(2048)  # callers that come before the loop runs wait for it
        except (OSError, OverflowError) as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error}", hint="--port 0 takes a free port") from error
        yield listening
