"""Pseudonyms of persons: a keyed hash, so that nobody without the key can find out who is meant.

The same value has the same pseudonym in every dataset, topic and table of an installation, so that joins work and a
person's rows can be found again; another key gives others. HMAC-SHA256 (RFC 2104), of which 130 bits are kept.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError

KEY_VARIABLE = "EDGEWRIGHT_PSEUDONYM_KEY"
KEY_FILE_VARIABLE = "EDGEWRIGHT_PSEUDONYM_KEY_FILE"
#: Fewest characters of a key: as many bits as 16 random bytes in hexadecimal have.
SHORTEST_KEY = 32
PREFIX = "p_"
_LENGTH = 26
_PSEUDONYM = re.compile(rf"^{PREFIX}[a-z2-7]{{{_LENGTH}}}$")
_HINT = f"make one by edgewright privacy key, and name its file by {KEY_FILE_VARIABLE} (or give {KEY_VARIABLE})"


class Pseudonyms:
    """Gives values their pseudonyms.

    Args:
        key: The secret; at least 32 characters.

    Raises:
        ConfigError: the key is too short to be one.
    """

    def __init__(self, key: str) -> None:
        if len(key.strip()) < SHORTEST_KEY:
            raise ConfigError(f"the key of pseudonyms has less than {SHORTEST_KEY} characters", hint=_HINT)
        self._key = key.strip().encode()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Pseudonyms:
        """Read the key from the environment, or from the file that the environment names.

        Raises:
            ConfigError: there is no key, or its file cannot be read.
        """
        environ = os.environ if environ is None else environ
        if environ.get(KEY_VARIABLE):
            return cls(environ[KEY_VARIABLE])
        place = environ.get(KEY_FILE_VARIABLE)
        if not place:
            raise ConfigError("personal columns need a key, and there is none", hint=_HINT)
        try:
            return cls(Path(place).read_text())
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"the key of pseudonyms cannot be read: {reason}", where=place, hint=_HINT) from error

    @property
    def key_id(self) -> str:
        """Names the key without telling it: what was made with another key has another name."""
        return hmac.new(self._key, b"edgewright key id", hashlib.sha256).hexdigest()[:16]

    def of(self, value: str) -> str:
        """Return the pseudonym of a value; a pseudonym stays what it is."""
        if _PSEUDONYM.match(value):
            return value
        digest = hmac.new(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return PREFIX + base64.b32encode(digest).decode().lower()[:_LENGTH]


def is_pseudonym(text: str) -> bool:
    """Whether a text is a pseudonym, and no value that would need one."""
    return _PSEUDONYM.match(text) is not None


class PersonalFeatures:
    """Treats features of requests that identify people: a pseudonym in place of the value, or nothing.

    The pseudonym is the one that ``ingest`` gives the same value. A number has that of its text, a whole one without a
    decimal point.

    Args:
        how: ``token`` or ``drop`` by the feature's name.
        pseudonyms: Where pseudonyms come from. Default: the key of the environment, if there is a ``token``.

    Raises:
        ConfigError: there is no key, or a treatment has another name.
    """

    def __init__(self, how: Mapping[str, str], pseudonyms: Pseudonyms | None = None) -> None:
        unknown = sorted(set(how.values()) - {"token", "drop"})
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is no way to treat a personal feature", hint="token or drop")
        self._how = dict(how)
        needed = "token" in self._how.values()
        self._of = functools.lru_cache(maxsize=100_000)((pseudonyms or Pseudonyms.load()).of) if needed else str

    def treated(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Return features without anything that identifies a person; a missing value stays missing."""
        return {
            name: value if name not in self._how or value is None else self._of(_text_of(value))
            for name, value in features.items()
            if self._how.get(name) != "drop"
        }


def _text_of(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
