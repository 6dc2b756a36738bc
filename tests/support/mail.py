"""A real mail server on loopback that keeps what it is given."""

from __future__ import annotations

import socket
from typing import Any


def mail_server(taken: list[Any]) -> Any:
    """Start a server and return its controller (``.port``, ``.stop()``).

    Args:
        taken: Gets every mail.
    """
    from aiosmtpd.controller import Controller
    from aiosmtpd.handlers import Message

    class Keep(Message):  # type: ignore[misc]
        def handle_message(self, message: Any) -> None:
            taken.append(message)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Keep(), hostname="127.0.0.1", port=port)
    controller.start()
    return controller
