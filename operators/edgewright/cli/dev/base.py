"""What all servers have in common: a folder, a port, a process, and a question whose answer shows that it is ready."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from edgewright.cli.stack.ports import HOST, PortClaims, is_free
from edgewright.cli.stack.processes import tail
from edgewright.errors import Busy, ConfigError, Unavailable

_PORTS = "ports.json"
_PR_SET_PDEATHSIG = 1


class Server:
    """One server. Use it as a context manager, or by ``start``, ``stop`` and ``kill``; it starts again where it was.

    Args:
        folder: Its data, configuration and log; made where it is not there.
        port: Port of loopback; default: the one that this folder had before, or a free one.
    """

    name: ClassVar[str]
    #: What it listens on besides its port.
    other_ports: ClassVar[tuple[str, ...]] = ()
    #: Seconds that it may take to answer, and to stop.
    patience: ClassVar[float] = 120.0
    grace: ClassVar[float] = 30.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder.resolve()
        self.ports: dict[str, int] = {}
        self._wanted = port
        self._process: subprocess.Popen[bytes] | None = None

    # -- what each server says of itself -----------------------------------------------------------------------

    def command(self) -> list[str]:
        """Write its configuration and return the command that runs it in the foreground."""
        raise NotImplementedError

    def ping(self) -> None:
        """Ask it something and check the answer; any exception means that it is not ready."""
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        """Return what a client needs, such as ``{"bootstrap": "127.0.0.1:9092"}``."""
        raise NotImplementedError

    def user(self) -> str | None:
        """Return the user that it runs as where that is not ours."""
        return None

    @classmethod
    def check(cls) -> None:
        """Check that this machine can run it, downloading what it needs.

        Raises:
            ConfigError: something is missing, and how to get it.
            Unavailable: it could not be downloaded.
        """

    # -- life --------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Its port, once it was started."""
        return self.ports["main"]

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """PID of its process while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            ConfigError: something is missing on this machine.
            Busy: its port is taken.
            Unavailable: it did not start; the end of its log is in the message.
        """
        if self.running:
            return self
        self.check()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the folder cannot be used: {error.strerror}", where=str(self.folder)) from error
        with PortClaims().held() as claims:
            self._choose_ports(claims)
            command = self.command()
            with self.log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for us; we stop it in our own time
                    user=self.user(),
                    preexec_fn=_end_with_parent(self.stop_signal),
                )
            self._wait()
        return self

    def stop(self) -> None:
        """Let it end by itself; kill it when it does not."""
        self._signal(self.stop_signal)
        if self._process is not None:
            try:
                self._process.wait(self.grace)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it as a machine that fails would (SIGKILL)."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)
            self._process = None

    def wait(self) -> int:
        """Wait until it ends by itself, and return its exit status."""
        assert self._process is not None, "not started"
        return self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *failure: object) -> None:
        self.stop()

    # -- helpers -----------------------------------------------------------------------------------------------

    def _signal(self, number: signal.Signals) -> None:
        if self.running and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _choose_ports(self, claims: PortClaims) -> None:
        """Take the ports that clients know from before; else free ones below those that the kernel hands out."""
        file = self.folder / _PORTS
        with contextlib.suppress(OSError, ValueError):
            self.ports = {**json.loads(file.read_text()), **self.ports}
        if self._wanted is not None:
            self.ports["main"] = self._wanted
            if not is_free(self._wanted):
                raise Busy(f"port {self._wanted} is taken", where=HOST, hint="stop what listens there, or give another")
        for name in ("main", *self.other_ports):
            known = self.ports.get(name)
            if known is None or not is_free(known):
                self.ports[name] = claims.take(random.randrange(20000, 32000))
        file.write_text(json.dumps(self.ports))

    def _wait(self) -> None:
        deadline = time.monotonic() + self.patience
        reason: Exception | None = None
        while self.running and time.monotonic() < deadline:
            try:
                self.ping()
                return
            except Exception as error:  # whatever is wrong, it is not ready yet
                reason = error
            time.sleep(0.05)
        outcome = f"did not answer within {self.patience:.0f} s ({reason})" if self.running else "ended at once"
        self.kill()
        raise Unavailable(f"{self.name} {outcome}; its log ends with\n{tail(self.log, 12)}", where=str(self.log))


def round_trip(port: int, question: bytes, length: int, timeout: float = 2.0) -> bytes:
    """Send bytes to a port of loopback and return the first bytes of the answer."""
    with socket.create_connection((HOST, port), timeout) as connection:
        connection.sendall(question)
        return connection.recv(length)


def _end_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Have the kernel end the server when we die without a chance to (Linux only).

    The kernel watches the thread that started it, so only the main thread, which lives as long as we do, may ask.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, int(number)) and None
