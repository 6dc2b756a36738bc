"""Eclipse Mosquitto, the MQTT broker, as the distribution packages it."""

from __future__ import annotations

import os
import shutil

from edgewright.cli.dev.base import Server, round_trip
from edgewright.cli.stack.ports import HOST
from edgewright.errors import ConfigError, Unavailable

#: MQTT 3.1.1: CONNECT with a clean session and the client id "ping"; CONNACK with return code 0.
_CONNECT = bytes([0x10, 16, 0, 4]) + b"MQTT" + bytes([4, 2, 0, 10, 0, 4]) + b"ping"
_CONNACK = bytes([0x20, 2, 0, 0])


class MosquittoServer(Server):
    """A broker without passwords; sessions and kept messages are written down when it stops, and every few seconds."""

    name = "Mosquitto"

    @classmethod
    def check(cls) -> None:
        """Check for the program."""
        _program()

    def command(self) -> list[str]:
        """Write ``mosquitto.conf`` and return the broker's command."""
        data, configuration = self.folder / "data", self.folder / "mosquitto.conf"
        data.mkdir(exist_ok=True)
        lines = [
            f"listener {self.port} {HOST}", "allow_anonymous true", "persistence true",
            f"persistence_location {data}/", "autosave_interval 1", "autosave_on_changes true",
            "max_queued_messages 0", "max_inflight_messages 200",
        ]  # fmt: skip
        if os.geteuid() == 0:
            lines.append("user root")  # it would change to a user who cannot write here
        configuration.write_text("\n".join(lines) + "\n")
        return [_program(), "-c", str(configuration)]

    def ping(self) -> None:
        """Open a session."""
        answer = round_trip(self.port, _CONNECT, 4)
        if answer != _CONNACK:
            raise Unavailable(f"it answered {answer!r}")

    def describe(self) -> dict[str, object]:
        """Return the address for clients."""
        return {"host": HOST, "port": self.port}


def _program() -> str:
    found = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if found is None:
        raise ConfigError("there is no mosquitto on this machine", hint="Debian: apt install mosquitto")
    return found
