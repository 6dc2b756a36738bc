"""Who may call what.

============================  ==========================  =====================================================
bound to                      administration              everything else (``/ping`` is always open)
============================  ==========================  =====================================================
loopback, without a token     open to this machine        open to this machine
loopback, with a token        token                       open to this machine
any other address             token (refused without)     token, or the prediction token; open if asked for
============================  ==========================  =====================================================

Where no token protects administration, a web page in a browser of this machine must not reach it either: the Host must
be a loopback name (against DNS rebinding) and the Origin, if any, must be the service's own (against forged requests).
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import ConfigError
from edgewright.serving.faults import RequestFault

MIN_TOKEN = 16


@dataclass(frozen=True)
class Access:
    """The rules of one service.

    Attributes:
        admin_token: Token of administration; ``None`` only on loopback.
        predict_token: A second token that may do anything but administer.
        loopback: Whether the service is bound to loopback.
        open_predictions: Whether predictions need no token on other addresses (a gateway checks them).
    """

    admin_token: str | None = None
    predict_token: str | None = None
    loopback: bool = True
    open_predictions: bool = False

    def __post_init__(self) -> None:
        if not self.loopback and self.admin_token is None:
            raise ConfigError(
                "a service that is bound to another address than loopback needs a token",
                where="--token-file",
                hint="write a long random text into a file and give it as --token-file, or bind to 127.0.0.1",
            )

    def check_admin(self, headers: Mapping[str, str]) -> None:
        """Raise a :class:`RequestFault` (401 or 403) where a call may not administer."""
        if self.admin_token is None:
            _check_local_page(headers)
            return
        _check_token(headers, (self.admin_token,))

    def check_predict(self, headers: Mapping[str, str]) -> None:
        """Raise a :class:`RequestFault` (401 or 403) where a call may not ask for predictions or read pages."""
        if self.loopback or self.open_predictions:
            return
        _check_token(headers, tuple(token for token in (self.admin_token, self.predict_token) if token))


def _check_token(headers: Mapping[str, str], tokens: tuple[str, ...]) -> None:
    given = _given(headers.get("authorization", ""))
    if given is None:
        raise RequestFault(
            "a token is needed", code="unauthenticated", status=401, hint="send Authorization: Bearer TOKEN"
        )
    # all are compared, each in constant time, so the time says nothing about which one was near
    matches = [hmac.compare_digest(given.encode(), token.encode()) for token in tokens]
    if not any(matches):
        raise RequestFault("the token is wrong", code="forbidden", status=403)


def _given(header: str) -> str | None:
    """Return the token of a header; a browser that asks its user sends it as the password of ``Basic``."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return None


def _check_local_page(headers: Mapping[str, str]) -> None:
    host = headers.get("host", "")
    if not is_loopback(_host_name(host)):
        raise RequestFault(
            f"administration without a token is for this machine only, not for the host {host}",
            code="forbidden", status=403, hint="start the service with --token-file",
        )  # fmt: skip
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise RequestFault(f"a page of {origin} may not administer this service", code="forbidden", status=403)


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether an address or name can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path | None, option: str) -> str | None:
    """Return the token in a file; ``None`` where no file is given.

    Raises:
        ConfigError: the file cannot be read, or the token is too short to be safe.
    """
    if path is None:
        return None
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token cannot be read: {error}", where=f"{option} {path}") from error
    if len(token) < MIN_TOKEN:
        raise ConfigError(
            f"the token has {len(token)} characters, at least {MIN_TOKEN} are needed", where=f"{option} {path}"
        )
    return token
