"""Secrets of a local stack: made once, kept in files that only their owner can read."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "secrets.json"
USERS = {"admin": "admin", "viewer": "viewer"}


@dataclass
class Secrets:
    """Keys and passwords.

    Attributes:
        jwt: Key that signs Airflow's tokens.
        fernet: Key that encrypts Airflow's connections.
        service_token: Token of the prediction service's administration.
        passwords: Airflow's users.
    """

    jwt: str
    fernet: str
    service_token: str
    passwords: dict[str, str]

    @classmethod
    def of(cls, home: Path) -> Secrets:
        """Return the secrets of a home folder, and make them first where there are none."""
        file = home / FILE
        if file.is_file():
            return cls(**json.loads(file.read_text()))
        made = cls(
            jwt=secrets.token_urlsafe(64),
            fernet=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            service_token=secrets.token_urlsafe(32),
            passwords={user: secrets.token_urlsafe(12) for user in USERS},
        )
        write_private(file, json.dumps(asdict(made), indent=1))
        return made


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".tmp-{file.name}-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(text)
    temporary.replace(file)
