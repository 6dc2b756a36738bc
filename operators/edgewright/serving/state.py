"""What the service remembers over a restart: ``state.json`` in its home folder, written in one step."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from edgewright.errors import SystemFault

FILE = "state.json"


class Choice(msgspec.Struct, frozen=True):
    """A version and variant of a model, with the digest that its files must have."""

    version: str
    variant: str
    digest: str = ""


class ModelState(msgspec.Struct, frozen=True):
    """What is served under a name, and what was served before."""

    current: Choice
    previous: Choice | None = None


class State(msgspec.Struct):
    """The whole document."""

    version: int = 1
    default: str | None = None
    models: dict[str, ModelState] = {}


def read_state(home: Path) -> State:
    """Return the remembered state; an empty one where there is none.

    Raises:
        SystemFault: it is there and cannot be read.
    """
    path = home / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except (msgspec.DecodeError, OSError) as error:
        raise SystemFault(
            f"the remembered state cannot be read: {error}", where=str(path), hint="move the file away and deploy again"
        ) from error


def write_state(home: Path, state: State) -> None:
    """Replace the state by a new one; readers see the old or the new one, never half of it.

    Raises:
        SystemFault: it could not be written.
    """
    path = home / FILE
    temporary = home / f".tmp-{FILE}-{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(state), indent=1))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SystemFault(
            f"the state cannot be written: {error.strerror or error}",
            where=str(path),
            hint="the disk is full: free some space" if error.errno == 28 else None,
        ) from error
