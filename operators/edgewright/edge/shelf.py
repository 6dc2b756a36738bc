"""The bundles that a node keeps: the one it answers with, and the one before.

::

    <home>/slots/<sha256 of the archive>/    an opened bundle, never changed
    <home>/state.json                        which slot is current, which is previous, what was refused

A slot is filled under another name, synced and renamed, and ``state.json`` is replaced in one step after that. So at
every moment, also when the power fails, the state names whole bundles; what it does not name is removed at the start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgewright.errors import StoreError

_STATE = "state.json"
_REFUSED = 50


@dataclass(frozen=True)
class Slot:
    """A bundle that was proven here.

    Attributes:
        slot: Name of its folder: the archive's sha256.
        name: Registered name of the model.
        version: Registered version.
        target: What it was compiled for.
        release: Digest of the release.
        signed: Whether its signature was compared with a key.
        since: When it was taken, by this node's clock; nothing is decided by it.
    """

    slot: str
    name: str
    version: int
    target: str
    release: str
    signed: bool
    since: str


@dataclass(frozen=True)
class State:
    """What ``state.json`` says.

    Attributes:
        current: What the node answers with.
        previous: What it answered with before.
        refused: Marks of offers that were refused, with the reason.
    """

    current: Slot | None = None
    previous: Slot | None = None
    refused: dict[str, str] = field(default_factory=dict)


class Shelf:
    """The folder of a node; one process at a time.

    Args:
        home: The folder.

    Raises:
        StoreError: it cannot be used.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.slots = home, home / "slots"
        with _kept(home):
            self.slots.mkdir(parents=True, exist_ok=True)
        self.state = self._read()
        self.tidy()

    def _read(self) -> State:
        try:
            text = json.loads((self.home / _STATE).read_bytes())
            slots = {name: Slot(**text[name]) if text.get(name) else None for name in ("current", "previous")}
            return State(slots["current"], slots["previous"], dict(text.get("refused", {})))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"the node's state cannot be read: {error}", where=str(self.home / _STATE),
                hint="remove the file: the node then takes its bundle anew",
            ) from error  # fmt: skip

    def folder(self, slot: Slot) -> Path:
        """Return where a bundle lies."""
        return self.slots / slot.slot

    def tidy(self) -> None:
        """Remove what the state does not name: leftovers of updates that did not end."""
        named = {slot.slot for slot in (self.state.current, self.state.previous) if slot}
        for path in self.slots.iterdir():
            if path.name not in named:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def keep(self, folder: Path, slot: Slot) -> None:
        """Give an opened bundle its place; it is not the current one yet.

        Raises:
            StoreError: it cannot be written.
        """
        with _kept(self.home):
            for path in [*folder.rglob("*"), folder]:
                _sync(path)
            target = self.folder(slot)
            if target.exists():
                shutil.rmtree(target)
            folder.rename(target)
            _sync(self.slots)

    def take(self, slot: Slot) -> None:
        """Make a kept bundle the current one, in one step; the one before becomes the previous one."""
        previous = self.state.current if self.state.current != slot else self.state.previous
        self._write(replace(self.state, current=slot, previous=previous))
        self.tidy()

    def roll_back(self, mark: str, reason: str) -> Slot | None:
        """Make the previous bundle the current one and refuse the one that failed; return what is current now."""
        refused = {**self.state.refused, mark: reason}
        self._write(State(self.state.previous, None, refused))
        self.tidy()
        return self.state.current

    def refuse(self, mark: str, reason: str) -> None:
        """Remember that an offer is not to be tried again."""
        refused = {**self.state.refused, mark: reason}
        self._write(replace(self.state, refused=dict(list(refused.items())[-_REFUSED:])))

    def _write(self, state: State) -> None:
        document: dict[str, Any] = {"format": "edgewright.edge-state/1", **asdict(state)}
        temporary = self.home / f".tmp-{_STATE}"
        with _kept(self.home):
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            _sync(temporary)
            temporary.replace(self.home / _STATE)
            _sync(self.home)
        self.state = state


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def _kept(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the node's folder cannot be written: {error.strerror or error}", where=str(where)) from error
