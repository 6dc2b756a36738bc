"""Types of the fields that event sources have, in ``triggers:`` and in ``wait``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from edgewright.spec.arguments import Invalid, duration

TOPIC_PATTERN = r"^([A-Za-z0-9._-]{1,249}|\^.+)$"


def _check_duration(value: Any) -> Any:
    try:
        duration(value)
    except Invalid:
        raise ValueError("must be a duration") from None
    return value


def _check_topic(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("^"):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
    elif isinstance(value, str) and not re.match(TOPIC_PATTERN, value):
        raise ValueError("must be letters, digits, ., _ and - (a pattern begins with ^)")
    return value


Duration = Annotated[
    str | int | float,
    BeforeValidator(_check_duration),
    Field(description='Seconds, "5m", "1h30m" or ISO 8601 such as "PT5M".', examples=["60s", "5m"]),
]
Topic = Annotated[
    str,
    BeforeValidator(_check_topic),
    Field(min_length=1, pattern=TOPIC_PATTERN, description="Name of a topic; one that begins with ^ is a pattern."),
]


def seconds(value: Any) -> float:
    """Return a duration of a document in seconds; 0 for ``None``."""
    return 0.0 if value is None else duration(value).total_seconds()
