"""Addresses for people; light, because every process that scores imports it."""

from __future__ import annotations

from urllib.parse import urlparse, urlunparse


def shown(address: str) -> str:
    """Return an address as it may stand in a manifest or a message: without password and without a signed query."""
    parts = urlparse(address)
    if "://" not in address or not (parts.query or "@" in parts.netloc):
        return address
    return urlunparse(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
