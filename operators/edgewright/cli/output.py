"""What every command prints the same way: errors, hints, durations, JSON. Colours only on a terminal."""

from __future__ import annotations

import datetime
import difflib
import json
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from edgewright.errors import EdgewrightError, SpecError


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "x"?`` for a near name that exists, else an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def seconds(value: float) -> str:
    """Return a duration for people: ``0.04 s``, ``1.2 s``, ``2 min 05 s``."""
    if value < 0.1:
        return f"{value:.2f} s"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def count(number: int, word: str) -> str:
    """Return a number with its word: ``1 fault``, ``3 faults``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def size(value: float) -> str:
    """Return a number of bytes for people, in powers of 1024."""
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def echo_error(text: str) -> None:
    """Write on standard error; without colours where NO_COLOR asks for none (the context may be gone by now)."""
    click.echo(text, err=True, color=False if os.environ.get("NO_COLOR") else None)


def error_text(error: EdgewrightError) -> str:
    """Return an error as it is printed: ``error: where: message`` and its hint."""
    if isinstance(error, SpecError):
        from edgewright.spec import render_faults

        return render_faults(error.faults)
    place = f"{error.where}: " if error.where else ""
    text = f"{click.style('error:', fg='red', bold=True)} {place}{error.message}"
    if error.hint:
        text += f"\n  {click.style('hint:', fg='cyan')} {error.hint}"
    return text


def report_error(error: Exception, *, debug: bool = False, prefix: str = "") -> int:
    """Print an error on standard error, after a prefix, and return the exit code that belongs to it."""
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if isinstance(error, EdgewrightError):
        echo_error(prefix + error_text(error))
        return error.exit_code
    place = None if debug else _keep_traceback(error)
    kept = f"\n  the traceback was written to {place}" if place else ""
    echo_error(
        f"{prefix}{click.style('error:', fg='red', bold=True)} this is a fault of Edgewright, not yours: "
        f"{type(error).__name__}: {error}{kept}\n"
        f"  {click.style('hint:', fg='cyan')} report it with that file; --debug shows it here"
    )
    return EdgewrightError.exit_code


def _keep_traceback(error: Exception) -> Path | None:
    """Write a crash's traceback below the home folder, or the temporary folder, if either lets us."""
    import tempfile

    from edgewright.installation import find_home

    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")
    text = f"edgewright {' '.join(sys.argv[1:])}\n\n" + "".join(traceback.format_exception(error))
    for folder in (find_home() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            place = folder / f"crash-{now}.txt"
            place.write_text(text)
        except OSError:
            continue
        return place
    return None
