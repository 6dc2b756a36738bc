"""Arguments of a step as the command line of a program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def options(values: Mapping[str, Any]) -> list[str]:
    """Return arguments as a command line has them.

    ``{alpha: 0.1}`` is ``--alpha=0.1``; ``true`` is ``--name`` alone, ``false`` and ``null`` are left out; lists and
    mappings are JSON.
    """
    found: list[str] = []
    for name, value in values.items():
        if value is True:
            found.append(f"--{name}")
        elif value is not None and value is not False:
            found.append(f"--{name}={value if isinstance(value, str) else json.dumps(value)}")
    return found
