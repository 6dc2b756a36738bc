"""Collecting what is wrong with a document, and showing it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from edgewright.errors import Fault
from edgewright.spec.pipeline import Position

#: Place of a value in a document: keys and indexes from the top.
Path = tuple[str | int, ...]

#: Characters of a line that a terminal shows of a fault's place.
_WIDEST = 160


def position_of(node: Any) -> Position:
    """Return where a YAML node starts, and where it ends if that is on the same line."""
    start, end = node.start_mark, node.end_mark
    return Position(start.line + 1, start.column + 1, end.column + 1 if end.line == start.line else 0)


def path_text(path: Path) -> str:
    """Return a place as people write it: ``tasks[2].with.split.test``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def near(word: object, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant."""
    found = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def listing(names: Iterable[str], most: int = 12) -> str:
    """Return names as a short list for a message."""
    all_names = list(names)
    shown = ", ".join(all_names[:most])
    return f"{shown}, ... ({len(all_names)} in all)" if len(all_names) > most else shown or "none"


def _one_line(text: str) -> str:
    """Return a text without line ends and control characters, so that a fault is one line of a log."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@dataclass(frozen=True)
class Origin:
    """Where a value stands that was written in another file.

    Attributes:
        faults: That file.
        path: Its place there.
    """

    faults: Faults
    path: Path


class Faults:
    """Everything that is wrong with one document, and where its values are.

    Attributes:
        file: The document's path as it is shown.
        found: The faults so far.
        positions: YAML node of each value, by place.
        key_positions: YAML node of each key, by place.
        redirects: Places whose text stands elsewhere: a task's value that comes from a template, anything that comes
            from another file.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Fault] = []
        self.positions: dict[Path, Any] = {}
        self.key_positions: dict[Path, Any] = {}
        self.redirects: dict[Path, Path | Origin] = {}

    def moved(self) -> Faults:
        """Return the positions of the text itself as faults of their own; this one is for a whole made of several."""
        own = Faults(self.file)
        own.positions, own.key_positions = self.positions, self.key_positions
        self.positions, self.key_positions = {}, {}
        return own

    def clone(self) -> Faults:
        """Return the same positions with faults of their own."""
        other = Faults(self.file)
        other.positions, other.key_positions, other.found = self.positions, self.key_positions, list(self.found)
        return other

    def rename(self, file: str) -> None:
        """Show the text under another name."""
        self.file = file
        self.found = [replace(fault, file=file) for fault in self.found]

    def forget(self, path: Path) -> None:
        """Forget where what is inside of a place stood: it was replaced."""
        for place in [place for place in self.redirects if len(place) > len(path) and place[: len(path)] == path]:
            del self.redirects[place]

    def position(self, path: Path, *, key: bool = False) -> Position:
        """Return where a place is, or where the nearest thing around it is."""
        return self._place(path, key=key)[1]

    def _place(self, path: Path, *, key: bool) -> tuple[str, Position]:
        """Return the file that a place is in, and where."""
        origin = self._redirected(path) if self.redirects else Origin(self, path)
        path = origin.path
        while path:
            node = (origin.faults.key_positions.get(path) if key else None) or origin.faults.positions.get(path)
            if node is not None:
                return origin.faults.file, position_of(node)
            path = path[:-1]
        return origin.faults.file, Position(1, 1)

    def _redirected(self, path: Path) -> Origin:
        for _ in range(len(self.redirects) + 1):
            for length in range(len(path), 0, -1):
                target = self.redirects.get(path[:length])
                if isinstance(target, Origin):
                    return Origin(target.faults, (*target.path, *path[length:]))
                if target is not None:
                    path = (*target, *path[length:])
                    break
            else:
                break
        return Origin(self, path)

    def add(
        self,
        path: Path,
        message: str,
        *,
        allowed: str | None = None,
        suggestion: str | None = None,
        code: str = "invalid",
        key: bool = False,
    ) -> None:
        """Note a fault at a place; ``key`` points at the key instead of the value."""
        file, position = self._place(path, key=key)
        self.at(position, path, message, allowed=allowed, suggestion=suggestion, code=code, file=file)

    def at(
        self,
        position: Position,
        path: Path,
        message: str,
        *,
        allowed: str | None = None,
        suggestion: str | None = None,
        code: str = "invalid",
        file: str | None = None,
    ) -> None:
        """Note a fault at a position of the text, or of another file's."""
        self.found.append(
            Fault(
                file or self.file,
                position.line,
                position.column,
                _one_line(path_text(path)),
                _one_line(message),
                _one_line(allowed) if allowed else allowed,
                _one_line(suggestion) if suggestion else suggestion,
                code,
                position.end_column,
            )
        )

    def unknown_key(self, path: Path, known: Iterable[str], what: str = "key") -> None:
        """Note a key that does not exist there."""
        names = list(known)
        self.add(
            path,
            f"unknown {what} {path[-1]!r}",
            allowed=f"allowed are: {listing(names)}",
            suggestion=near(path[-1], names),
            code="unknown-key",
            key=True,
        )


def render_faults(faults: list[Fault], text: str | None = None) -> str:
    """Return faults for a terminal, each with the line and a caret below the offending text.

    Args:
        faults: What is wrong.
        text: The document; read from the file where it is not given.
    """
    sources: dict[str, list[str]] = {}
    blocks = []
    for fault in faults:
        if fault.file not in sources:
            sources[fault.file] = text.splitlines() if text is not None else _lines(fault.file)
        block = str(fault)
        lines = sources[fault.file]
        if 0 < fault.line <= len(lines):
            number = f"{fault.line:>5} | "
            line, start, width = _window(lines[fault.line - 1], fault.column - 1, fault.end_column - fault.column)
            before = "".join("\t" if character == "\t" else " " for character in line[:start])
            block += f"\n{number}{line}\n{' ' * len(number)}{before}{'^' * width}"
        blocks.append(block)
    return "\n".join(blocks)


def _window(line: str, start: int, width: int) -> tuple[str, int, int]:
    """Return the part of a long line around a place, where the place begins in it, and how wide it is there."""
    if len(line) <= _WIDEST:
        return line, start, max(1, width)
    first = max(0, min(start - _WIDEST // 3, len(line) - _WIDEST))
    cut = line[first : first + _WIDEST]
    left, right = "..." if first else "", "..." if first + _WIDEST < len(line) else ""
    width = max(1, min(width, len(cut) - (start - first)))
    return f"{left}{cut}{right}", start - first + len(left), width


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8", errors="replace") as source:
            return source.read().splitlines()
    except OSError:
        return []
