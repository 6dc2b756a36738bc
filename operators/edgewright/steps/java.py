"""The machine's Java."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from edgewright.errors import ConfigError

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_HINT = "Debian: apt install openjdk-17-jdk-headless; JAVA_HOME chooses among several"


def find_java(*, lowest: int, highest: int | None = None, modules: tuple[str, ...] = ()) -> str:
    """Return the ``java`` of ``JAVA_HOME`` or of the search path.

    Args:
        lowest: First release that will do.
        highest: Last release that will do.
        modules: Modules that it must have, such as ``jdk.compiler`` (not in every JRE).

    Raises:
        ConfigError: there is none, or it will not do.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home) / "bin" / "java")) if home else shutil.which("java")
    if found is None:
        raise ConfigError(f"there is no Java{f' in JAVA_HOME={home}' if home else ' on this machine'}", hint=_HINT)
    release = _release(found)
    if release < lowest or (highest is not None and release > highest):
        wanted = f"Java {lowest}" + (f" to {highest}" if highest else " or newer")
        raise ConfigError(f"{wanted} is needed, and this is Java {release}", where=found, hint=_HINT)
    if modules:
        listed = _output([found, "--list-modules"])
        absent = [name for name in modules if not re.search(rf"^{re.escape(name)}@", listed, re.MULTILINE)]
        if absent:
            raise ConfigError(f"this Java lacks {', '.join(absent)}: a whole JDK is needed", where=found, hint=_HINT)
    return found


def _release(java: str) -> int:
    match = _VERSION.search(_output([java, "-version"]))
    return int(match.group(1)) if match else 0


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 (our own arguments, no shell)
            command, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"Java does not run: {error}", where=command[0], hint=_HINT) from error
    return done.stdout + done.stderr
