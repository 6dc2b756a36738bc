"""MariaDB, as the distribution packages it: a server of its own, on TCP of loopback, whose root has no password."""

from __future__ import annotations

import os
import shutil
import subprocess

from edgewright.cli.dev.base import Server, round_trip
from edgewright.cli.stack.ports import HOST
from edgewright.errors import ConfigError, Unavailable

_HINT = "Debian: apt install mariadb-server"


class MariaDbServer(Server):
    """A server with the superuser ``root`` and the database ``test``."""

    name = "MariaDB"

    @property
    def url(self) -> str:
        """Address for clients, of the database ``test``."""
        return f"mariadb://root@{HOST}:{self.port}/test"

    @classmethod
    def check(cls) -> None:
        """Check for the programs."""
        _program("mariadbd")
        _program("mariadb-install-db")
        _program("my_print_defaults")  # Debian has it in another package than the server's core

    def command(self) -> list[str]:
        """Make the system tables where there are none, and return the server's command."""
        data = self.folder / "data"
        as_root = ["--user=root"] if os.geteuid() == 0 else []  # it would change to a user who cannot write here
        if not (data / "mysql").exists():
            # a folder of its own name at the end, so that a kill leaves none that is half full
            making = self.folder / "making"
            shutil.rmtree(making, ignore_errors=True)
            step = [
                _program("mariadb-install-db"), "--no-defaults", f"--datadir={making}", "--skip-test-db",
                "--auth-root-authentication-method=normal", *as_root,
            ]  # fmt: skip
            done = subprocess.run(step, capture_output=True, text=True, check=False, cwd=self.folder)
            if done.returncode:
                raise ConfigError(f"no database could be made: {done.stderr.strip()[-500:]}", where=str(data))
            (making / "test").mkdir()
            making.rename(data)
        return [
            _program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--bind-address={HOST}", f"--port={self.port}",
            "--socket=server.sock", "--innodb-flush-log-at-trx-commit=2", "--character-set-server=utf8mb4",
            *as_root,
        ]  # fmt: skip

    def ping(self) -> None:
        """Wait for its greeting: a packet with version 10 of the protocol."""
        answer = round_trip(self.port, b"", 5)
        if answer[4:5] != b"\x0a":
            raise Unavailable(f"it answered {answer!r}")

    def describe(self) -> dict[str, object]:
        """Return the address for clients."""
        return {"url": self.url}


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if found is None:
        raise ConfigError(f"there is no MariaDB ({name}) on this machine", hint=_HINT)
    return found
