"""Whether a value or a message is a person's: by the pseudonym, or by name where ingest makes pseudonyms."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from edgewright.streams.pseudonyms import PersonalFeatures, Pseudonyms


class Matcher:
    """Says whether something is a person's.

    Args:
        subject: The pseudonym.
        fields: Names that are pseudonymised at ingest: elsewhere they may stand as they came.
        pseudonyms: Finds these; without a key only the pseudonym itself is found.
    """

    def __init__(self, subject: str, fields: set[str], pseudonyms: Pseudonyms | None) -> None:
        self._subject, self._pseudonyms = subject, pseudonyms
        self._treat = PersonalFeatures(dict.fromkeys(fields, "token"), pseudonyms) if pseudonyms else None
        #: Names of columns in which the person may stand by name; none without a key.
        self.fields = fields if pseudonyms else set()

    def is_key(self, key: bytes | None) -> bool:
        """Whether a key is the person, by the pseudonym or by name."""
        try:
            text = (key or b"").decode()
        except UnicodeDecodeError:
            return False
        return bool(text) and self.is_any([text])

    def is_any(self, texts: Iterable[str]) -> bool:
        """Whether one of some texts is the person, by the pseudonym or by name, whatever its field is called."""
        known = self._pseudonyms
        return any(text == self._subject or (known and text and known.of(text) == self._subject) for text in texts)

    def is_cell(self, name: str, value: str) -> bool:
        """Whether a value of a column is the person."""
        return value == self._subject or (name in self.fields and self.is_any([value]))

    def is_row(self, row: Mapping[str, str]) -> bool:
        """Whether a row of texts is the person's."""
        return any(self.is_cell(name, value) for name, value in row.items())

    def is_value(self, value: bytes | None) -> bool:
        """Whether a JSON message holds the person."""
        if value is None:
            return False
        named = self._treat is not None and any(name.encode() in value for name in self.fields)
        if not named and self._subject.encode() not in value:
            return False
        try:
            return self._holds(json.loads(value))
        except ValueError:
            return self._subject.encode() in value

    def is_message(self, line: bytes) -> bool:
        """Whether a message as a batch keeps it is the person's: by value, key, or a payload nobody could read."""
        if self.is_value(line):
            return True
        if self._treat is None and b'"payload"' not in line:
            return False
        try:
            message = json.loads(line)
        except ValueError:
            return False
        if not isinstance(message, dict):
            return False
        key, payload = message.get("key"), message.get("payload")
        if isinstance(key, str) and "value" in message and self.is_key(key.encode()):
            return True
        return isinstance(payload, str) and "reason" in message and self.is_value(_decoded(payload))

    def _holds(self, value: Any) -> bool:
        if isinstance(value, dict):
            known = {name: one for name, one in value.items() if not isinstance(one, (dict, list))}
            treated = self._treat.treated(known) if self._treat else known
            return self._subject in treated.values() or any(map(self._holds, value.values()))
        return any(map(self._holds, value)) if isinstance(value, list) else value == self._subject


def _decoded(payload: str) -> bytes:
    try:
        return base64.b64decode(payload)
    except ValueError:
        return b""
