"""``python -m edgewright.serving``: the prediction service as one process."""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from edgewright.errors import Busy, ConfigError, EdgewrightError, Unavailable
from edgewright.serving.access import Access, is_loopback, read_token
from edgewright.serving.app import Service, build_app
from edgewright.serving.host import ModelHost
from edgewright.serving.invocations import Limits
from edgewright.serving.library import check_name
from edgewright.serving.sources import open_source
from edgewright.serving.state import read_state

if TYPE_CHECKING:
    from edgewright.streams.feature_log import FeatureLog
    from edgewright.streams.pseudonyms import PersonalFeatures

GRACE = 15
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Server(uvicorn.Server):
    """Says in a file that it listens, so that whoever started it need not guess."""

    ready_file: Path | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.ready_file is None or self.should_exit or not sockets:
            return
        host, port = sockets[0].getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        text = json.dumps({"url": f"http://{name}:{port}", "host": host, "port": port, "pid": os.getpid()})
        temporary = self.ready_file.with_name(f".tmp-{self.ready_file.name}-{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(self.ready_file)


def main(arguments: list[str] | None = None) -> int:
    """Run the service until it is told to stop; return the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    try:
        return _serve(options)
    except EdgewrightError as error:
        sys.stderr.write(f"edgewright.serving: {error}\n")
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgewright.serving", description="Serves models over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8500, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--home", type=Path, required=True, help="folder for releases and the remembered state")
    parser.add_argument(
        "--tracking-uri", required=True, help="MLflow's address, or file:///folder with NAME/VERSION/ releases"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME[@ALIAS]",
        help="load this model after the start (alias: champion); may be given several times, the first is the default",
    )  # fmt: skip
    parser.add_argument("--token-file", type=Path, help="file with the administration token")
    parser.add_argument("--predict-token-file", type=Path, help="file with a token that may only ask for predictions")
    parser.add_argument(
        "--open-predictions", action="store_true",
        help="predictions need no token although the address is not loopback: something in front checks them",
    )  # fmt: skip
    parser.add_argument("--ready-file", type=Path, help="written when the service listens: {url, host, port, pid}")
    parser.add_argument("--max-body", type=int, default=Limits.body, help="bytes of one request (%(default)s)")
    parser.add_argument("--max-rows", type=int, default=Limits.rows, help="rows of one request (%(default)s)")
    parser.add_argument(
        "--feature-log", metavar="kafka://HOST:PORT/TOPIC", help="send each request's features and answer to this topic"
    )
    parser.add_argument(
        "--feature-log-durable", action="store_true",
        help="answer only what is logged on the disk, so that not even a machine that fails loses an entry",
    )  # fmt: skip
    parser.add_argument(
        "--feature-log-spool", type=int, default=256, metavar="MIB",
        help="entries that may wait on disk while Kafka is away (%(default)s MiB)",
    )  # fmt: skip
    parser.add_argument(
        "--feature-log-personal", action="append", default=[], metavar="FEATURE[=drop]",
        help="log a pseudonym in place of this feature's value (or leave it out); may be given several times",
    )  # fmt: skip
    parser.add_argument("--access-log", action="store_true", help="log every request")
    return parser


def _serve(options: argparse.Namespace) -> int:
    access = Access(
        admin_token=read_token(options.token_file, "--token-file"),
        predict_token=read_token(options.predict_token_file, "--predict-token-file"),
        loopback=is_loopback(options.host),
        open_predictions=options.open_predictions,
    )
    wanted = tuple(_wanted(text) for text in options.model)
    home: Path = options.home.resolve()
    with _own(home):
        read_state(home)  # one that cannot be read is said before anything starts
        host = ModelHost(home, open_source(options.tracking_uri), default=wanted[0][0] if wanted else None)
        service = Service(
            host, access, Limits(options.max_body, options.max_rows), wanted=wanted,
            feature_log=_feature_log(options, home),
        )  # fmt: skip
        config = uvicorn.Config(
            build_app(service), host=options.host, port=options.port, lifespan="on", log_config=None, log_level="info",
            access_log=options.access_log, server_header=False, timeout_graceful_shutdown=GRACE, ws="none",
            proxy_headers=False,
        )  # fmt: skip
        server = _Server(config)
        server.ready_file = options.ready_file
        listening = _bind(options.host, options.port)
        try:
            # uvicorn raises a signal again once it has stopped; the files here are still to be put away
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: None)
            server.run([listening])
        finally:
            listening.close()
            if options.ready_file:
                options.ready_file.unlink(missing_ok=True)
    return 0 if server.started else 70


def _feature_log(options: argparse.Namespace, home: Path) -> FeatureLog | None:
    if not options.feature_log:
        return None
    from edgewright.streams.addresses import kafka_address
    from edgewright.streams.feature_log import FeatureLog

    if options.feature_log_spool < 1:
        raise ConfigError("at least 1 MiB is needed", where="--feature-log-spool")
    return FeatureLog(
        kafka_address(options.feature_log), home / "feature-log",
        durable=options.feature_log_durable, limit=options.feature_log_spool << 20,
        personal=_personal(options.feature_log_personal),
    )  # fmt: skip


def _personal(given: list[str]) -> PersonalFeatures | None:
    """Return what treats personal features; the key of pseudonyms must be there before anything is answered."""
    from edgewright.streams.pseudonyms import PersonalFeatures

    how = dict(text.rpartition("=")[::2] if "=" in text else (text, "token") for text in given)
    return PersonalFeatures(how) if how else None


def _wanted(text: str) -> tuple[str, str]:
    name, _, alias = text.partition("@")
    return check_name(name), check_name(alias) if alias else "champion"


class _own:  # noqa: N801 - reads as a word: with _own(home)
    """Holds the home folder for this process: two services in one would overwrite each other's state."""

    def __init__(self, home: Path) -> None:
        self._path = home / "service.lock"

    def __enter__(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a")
        except OSError as error:
            raise ConfigError(f"the home folder cannot be used: {error}", where="--home") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise Busy(
                "another service uses this home folder", where=str(self._path.parent), hint="give it another --home"
            ) from error

    def __exit__(self, *failure: object) -> None:
        self._file.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise Unavailable(f"cannot listen on {host}:{port}: {error}", hint="--port 0 takes a free port") from error
    listening.set_inheritable(True)
    return listening


if __name__ == "__main__":
    sys.exit(main())
