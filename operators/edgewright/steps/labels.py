"""Names as Kubernetes takes them."""

from __future__ import annotations

import hashlib
import re


def label(text: str) -> str:
    """Return a text as the value of a label: 63 characters, ending with a digest where some were lost."""
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")
    if clean == text and len(text) <= 63:
        return text
    return f"{clean[:50].strip('-_.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".strip("-")


def object_name(text: str) -> str:
    """Return a text as the name of an object: small letters, digits and dashes, 63 at most."""
    clean = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if clean == text and len(text) <= 63:
        return text
    return f"{clean[:50].strip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".strip("-")
