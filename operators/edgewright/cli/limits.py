"""How long a task may take, and whether and when it is tried again."""

from __future__ import annotations

import contextlib
import datetime
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from edgewright.errors import EdgewrightError, UserCodeError

#: Seconds before a second try where the task says nothing; doubles with every further one. (Airflow waits five
#: minutes; somebody who watches would not.)
RETRY_DELAY = 1.0
MAX_RETRY_DELAY = 30.0


def retry_delay(arguments: Mapping[str, Any], number: int) -> float:
    """Return the seconds to wait after the failed try of that number (from 1), by the task's arguments."""
    given = arguments.get("retry_delay")
    if given is None:
        return min(RETRY_DELAY * 2.0 ** (number - 1), MAX_RETRY_DELAY)
    delay = as_seconds(given)
    backoff = arguments.get("retry_exponential_backoff")
    if backoff:
        # true means doubling, a number is the factor, as in Airflow
        delay *= (2.0 if backoff is True else float(backoff)) ** (number - 1)
    longest = arguments.get("max_retry_delay")
    return delay if longest is None else min(delay, as_seconds(longest))


def worth_retrying(error: Exception) -> bool:
    """Return whether trying again can help: not for a user's fault, nor for what says so itself."""
    if isinstance(error, EdgewrightError):
        return error.retriable
    return type(error).__name__ != "AirflowFailException"


def as_seconds(value: Any) -> float:
    """Return a duration in seconds: a number, a timedelta, or a text such as ``90``, ``00:01:30`` or ``PT1M30S``."""
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)):
        return float(value)
    from pydantic import TypeAdapter

    return TypeAdapter(datetime.timedelta).validate_python(value).total_seconds()


class _TimedOut(BaseException):
    """Raised inside a task by the alarm; not an Exception, so that user code does not swallow it."""


@contextlib.contextmanager
def time_limit(limit: Any, task_id: str) -> Iterator[None]:
    """Stop a task after its ``execution_timeout`` (in the main thread, where alarms are possible).

    Raises:
        UserCodeError: the time is over.
    """
    if limit is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds = as_seconds(limit)

    def alarm(number: int, frame: object) -> None:
        raise _TimedOut

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimedOut:
        raise UserCodeError(
            f"task {task_id} ran longer than its execution_timeout of {seconds:g} s", hint="raise execution_timeout"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
