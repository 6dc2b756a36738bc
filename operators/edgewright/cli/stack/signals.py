"""Ctrl-C, ``kill`` and a closed terminal, for commands that have processes to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt this process as Ctrl-C does, so that what it started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(_ENDING, interrupt):
        yield


@contextlib.contextmanager
def uninterrupted(say: Callable[[str], None]) -> Iterator[None]:
    """Finish what has begun: whoever presses Ctrl-C meanwhile is told to wait."""

    def later(number: int, frame: FrameType | None) -> None:
        say("still stopping, a moment")

    with _handled((signal.SIGINT, *_ENDING), later):
        yield


@contextlib.contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
