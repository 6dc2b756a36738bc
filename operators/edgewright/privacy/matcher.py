"""Whether a message is a person's: by the pseudonym, or by name in a field that ingest makes pseudonyms of."""

from __future__ import annotations

import json
from typing import Any

from edgewright.streams.pseudonyms import PersonalFeatures, Pseudonyms


class Matcher:
    """Says whether a message is a person's.

    Args:
        subject: The pseudonym.
        fields: Names that are pseudonymised at ingest: in a topic they may stand as they came.
        pseudonyms: Finds these; without a key only the pseudonym itself is found.
    """

    def __init__(self, subject: str, fields: set[str], pseudonyms: Pseudonyms | None) -> None:
        self._subject, self._pseudonyms = subject, pseudonyms
        self._treat = PersonalFeatures(dict.fromkeys(fields, "token"), pseudonyms) if pseudonyms else None
        self._fields = fields

    def is_key(self, key: bytes | None) -> bool:
        """Whether a key is the person, by the pseudonym or by name."""
        try:
            text = (key or b"").decode()
        except UnicodeDecodeError:
            return False
        return text == self._subject or bool(text and self._pseudonyms and self._pseudonyms.of(text) == self._subject)

    def is_value(self, value: bytes | None) -> bool:
        """Whether a JSON message holds the person."""
        if value is None:
            return False
        named = self._treat is not None and any(name.encode() in value for name in self._fields)
        if not named and self._subject.encode() not in value:
            return False
        try:
            return self._holds(json.loads(value))
        except ValueError:
            return self._subject.encode() in value

    def _holds(self, value: Any) -> bool:
        if isinstance(value, dict):
            known = {name: one for name, one in value.items() if not isinstance(one, (dict, list))}
            treated = self._treat.treated(known) if self._treat else known
            return self._subject in treated.values() or any(map(self._holds, value.values()))
        return any(map(self._holds, value)) if isinstance(value, list) else value == self._subject
