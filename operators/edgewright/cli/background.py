"""Work that runs until Ctrl-C, and ends in its own time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import click

from edgewright.cli.stack.signals import interruptible


def until_interrupted(work: Callable[[], object], stop: Callable[[], None], ending: str) -> None:
    """Run work in a thread until it ends; on Ctrl-C, SIGTERM or SIGHUP ask it to end, and wait for it.

    Args:
        work: The work; what it raises is raised here.
        stop: Asks it to end.
        ending: Said when it was asked.
    """
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed over to the main thread
            failure.append(error)

    thread = threading.Thread(target=run, name="work")
    thread.start()
    try:
        with interruptible():
            while thread.is_alive():
                thread.join(0.2)
    except KeyboardInterrupt:
        click.echo(ending, err=True)
        stop()
        thread.join()
    if failure:
        raise failure[0]


class Lines:
    """Lines on standard error: what is unusual at most once in ten seconds each, progress once in five."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        self._reported = time.monotonic()

    def say(self, line: str) -> None:
        """Say something unusual."""
        now = time.monotonic()
        if now - self._said.get(line, -10.0) >= 10:
            self._said = {known: at for known, at in self._said.items() if now - at < 10} | {line: now}
            click.echo(line, err=True)

    def report(self, line: Callable[[], str]) -> None:
        """Say how far it is."""
        if time.monotonic() - self._reported >= 5:
            self._reported = time.monotonic()
            click.echo(line(), err=True)
