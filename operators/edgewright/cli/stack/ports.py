"""Free ports on the loopback address, promised to one stack at a time.

A server binds to its port only seconds after it was started, so two stacks that start together would choose the same
ones. Between choosing and binding a port is therefore claimed: a lock on a file that all stacks of this user see, which
the kernel gives back when the process ends. Programs that are no stacks may still come in between; who loses a port
that way chooses again (see :meth:`LocalStack.up`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgewright.errors import Unavailable

HOST = "127.0.0.1"
_SPAN = 200


class PortClaims:
    """Ports that this process has chosen and whose servers do not listen yet.

    Args:
        folder: Where the lock files are; default: a folder of this user below the temporary folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"edgewright-ports-{os.getuid()}"
        self._files: dict[int, IO[bytes] | None] = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[PortClaims]:
        """Give all claims back at the end."""
        try:
            yield self
        finally:
            for file in self._files.values():
                if file is not None:
                    file.close()
            self._files.clear()

    def take(self, preferred: int) -> int:
        """Return the preferred port, or the next one that is free and claimed by nobody.

        Raises:
            Unavailable: none of the next 200 is free.
        """
        for port in range(preferred, min(preferred + _SPAN, 65536)):
            if port not in self._files and self._claim(port):
                return port
        raise Unavailable(
            f"no free port from {preferred} to {preferred + _SPAN - 1}",
            where=HOST,
            hint="stop something, or another stack: edgewright down --home ITS_HOME",
        )

    def _claim(self, port: int) -> bool:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = (self._folder / str(port)).open("ab")
        except OSError:
            # without claims (a folder that cannot be written) choosing again is still there
            self._files[port] = None
            return is_free(port)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        if not is_free(port):
            file.close()
            return False
        self._files[port] = file
        return True


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as servers do: a port whose last connections are only waiting to be forgotten is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
