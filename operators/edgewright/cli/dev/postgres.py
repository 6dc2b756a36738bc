"""PostgreSQL, as the distribution packages it: a cluster of its own, on TCP of loopback, without passwords."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import struct
import subprocess
from pathlib import Path

from edgewright.cli.dev.base import Server, round_trip
from edgewright.cli.stack.ports import HOST
from edgewright.errors import ConfigError, Unavailable

_USER, _DATABASE = "postgres", "postgres"
#: Startup message of protocol 3.0; the answer begins with R when it lets us in.
_STARTUP = struct.pack("!I", 3 << 16) + b"user\0" + _USER.encode() + b"\0database\0" + _DATABASE.encode() + b"\0\0"


class PostgresServer(Server):
    """A cluster with the superuser ``postgres``. PostgreSQL refuses root; for root it runs as the user ``postgres``."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # its "fast" shutdown: clients are let go, nothing is lost

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"postgresql://{_USER}@{HOST}:{self.port}/{_DATABASE}"

    @classmethod
    def check(cls) -> None:
        """Check for the programs and, for root, for the user that it runs as."""
        _program("initdb")
        _user()

    def user(self) -> str | None:
        """Return ``postgres`` where we are root."""
        return _user()

    def command(self) -> list[str]:
        """Make the cluster where there is none, and return the server's command."""
        data = self.folder / "data"
        user = self.user()
        if user is not None:
            shutil.chown(self.folder, user)
        if not (data / "PG_VERSION").exists():
            step = [_program("initdb"), "-D", str(data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
            done = subprocess.run(
                step, capture_output=True, text=True, check=False, user=user, cwd="/", env=os.environ | {"LC_ALL": "C"}
            )
            if done.returncode:
                raise ConfigError(
                    f"no cluster could be made: {done.stderr.strip()}",
                    where=str(data),
                    hint=f"the user {user} must be able to reach this folder" if user else None,
                )
        settings = {"listen_addresses": HOST, "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [_program("postgres"), "-D", str(data), *options]

    def ping(self) -> None:
        """Ask to be let in."""
        answer = round_trip(self.port, struct.pack("!I", len(_STARTUP) + 4) + _STARTUP, 1)
        if answer != b"R":
            raise Unavailable(f"it answered {answer!r}")

    def describe(self) -> dict[str, object]:
        """Return the address for clients."""
        return {"url": self.url}


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise ConfigError("PostgreSQL does not run as root, and there is no user postgres") from None


def _program(name: str) -> str:
    """Return a program of PostgreSQL; Debian keeps them off the search path."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = shutil.which(name) or (str(newest[-1]) if newest else None)
    if found is None:
        raise ConfigError(f"there is no PostgreSQL ({name}) on this machine", hint="Debian: apt install postgresql")
    return found
