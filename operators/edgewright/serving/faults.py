"""What the service answers when something is wrong: one body for every error, with the HTTP status of its class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgewright.errors import (
    Busy,
    ConfigError,
    DamagedArtifact,
    DeployRejected,
    EdgewrightError,
    NotFound,
    Unavailable,
    UserFault,
)

#: More details than this are counted, not listed: the answer stays small whatever was sent.
MAX_DETAILS = 20


class RequestFault(UserFault):
    """A request cannot be answered as it was sent.

    Args:
        message: What is wrong, naming row, column and value where there are any.
        code: Stable short name of the kind of fault, such as ``invalid-value``.
        status: HTTP status.
        details: One entry for every single fault.
        hint: How to mend it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int = 400,
        details: Iterable[dict[str, Any]] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status
        self.details = list(details)


class NotReady(Unavailable):
    """The service is up and has no model to answer with."""


_STATUS: tuple[tuple[type[EdgewrightError], int, str], ...] = (
    (NotReady, 503, "no-model"),
    (NotFound, 404, "not-found"),
    (DeployRejected, 409, "rejected"),
    (DamagedArtifact, 409, "damaged"),
    (ConfigError, 400, "invalid-request"),
    (Busy, 503, "busy"),
    (Unavailable, 503, "unavailable"),
    (UserFault, 400, "invalid-request"),
)


def describe_error(error: EdgewrightError) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the body ``{"error": {"code", "message", "hint", "details"}}`` of an error."""
    status, code, details = 500, "internal", []
    if isinstance(error, RequestFault):
        status, code, details = error.status, error.code, error.details
    else:
        for kind, kind_status, kind_code in _STATUS:
            if isinstance(error, kind):
                status, code = kind_status, kind_code
                break
    message = f"{error.where}: {error.message}" if error.where else error.message
    return status, {"error": {"code": code, "message": message, "hint": error.hint, "details": details}}


def all_of(faults: list[dict[str, Any]], code: str, hint: str | None = None) -> RequestFault:
    """Return one error for many faults: the first one is the message, the others are details, the rest a count."""
    more = len(faults) - 1
    message = faults[0]["message"] + (f" (and {more} more)" if more else "")
    return RequestFault(message, code=code, details=faults[:MAX_DETAILS], hint=hint)
