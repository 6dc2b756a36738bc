"""Ages as people write them: ``12h``, ``90d``, ``8w``."""

from __future__ import annotations

import datetime
import re

#: How long something is to stay: more than nothing.
AGE_PATTERN = r"^[1-9][0-9]{0,4}[hdw]$"
_AGE = re.compile(r"[0-9]{1,5}[hdw]")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def age_of(text: str) -> datetime.timedelta:
    """Read an age.

    Raises:
        ValueError: it is none.
    """
    if not _AGE.fullmatch(text):
        raise ValueError(f"{text!r} is no age: write 12h, 30d or 8w")
    return datetime.timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
