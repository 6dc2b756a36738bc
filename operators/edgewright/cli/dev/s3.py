"""A server that speaks S3 and SQS: moto, in memory. Objects are gone when it stops."""

from __future__ import annotations

import importlib.util
import sys
import urllib.request

from edgewright.cli.dev.base import Server
from edgewright.cli.stack.ports import HOST
from edgewright.errors import ConfigError


class S3Server(Server):
    """An object store; any key and secret will do."""

    name = "S3"
    key = "edgewright"
    secret = "edgewright"  # noqa: S105 - it protects nothing

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    @classmethod
    def check(cls) -> None:
        """Check that moto's server is installed."""
        if any(importlib.util.find_spec(name) is None for name in ("moto", "flask")):
            raise ConfigError("there is no moto in this environment", hint="pip install 'moto[server,s3]'")

    def command(self) -> list[str]:
        """Return the server's command."""
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]

    def ping(self) -> None:
        """Ask for the buckets."""
        with urllib.request.urlopen(f"{self.endpoint}/", timeout=2) as answer:  # noqa: S310 - always http
            assert b"ListAllMyBucketsResult" in answer.read()

    def describe(self) -> dict[str, object]:
        """Return the address and the credentials."""
        return {"endpoint": self.endpoint, "key": self.key, "secret": self.secret}
