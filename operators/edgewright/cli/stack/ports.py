"""Free ports on the loopback address."""

from __future__ import annotations

import socket

from edgewright.errors import Unavailable

HOST = "127.0.0.1"
_SPAN = 200


def free_port(preferred: int, taken: set[int]) -> int:
    """Return the preferred port, or the next one that is free.

    Args:
        preferred: Where to begin.
        taken: Ports that were promised to somebody already; the chosen one is added.

    Raises:
        Unavailable: none of the next 200 is free.
    """
    for port in range(preferred, preferred + _SPAN):
        if port not in taken and _is_free(port):
            taken.add(port)
            return port
    raise Unavailable(f"no free port between {preferred} and {preferred + _SPAN - 1}", where=HOST)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as servers do: a port whose last connections are only waiting to be forgotten is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
