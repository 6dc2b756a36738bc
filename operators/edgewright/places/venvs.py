"""Virtual environments of ``python:``: over the worker's own libraries, built once for each lock, shared by all tasks.

An environment sees the worker's libraries behind its own, so it holds only what is different or more. Its folder is
named by a digest over what was asked for and over the worker's libraries.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import shutil
import subprocess
import sys
import sysconfig
import uuid
from pathlib import Path

from edgewright.artifacts.digest import digest_json
from edgewright.errors import ConfigError, Unavailable
from edgewright.installation import find_home
from edgewright.spec.profiles import Python
from edgewright.steps.environment import installed
from edgewright.targets.environments import locked

log = logging.getLogger("edgewright.places")
BUILD_SECONDS = 1800.0
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


def interpreter(python: Python, folder: Path | None) -> Path:
    """Return the interpreter of an environment; build it where it does not exist yet.

    Args:
        python: What it holds.
        folder: The pipeline's folder, where a requirements file is looked for.

    Raises:
        ConfigError: there is no such extra, or no such file.
        Unavailable: its packages could not be installed; trying again may help.
    """
    wanted, file = _wanted(python, folder)
    name = digest_json([wanted, file.read_text() if file else None, installed(), sys.version])[:16]
    home = find_home() / "environments" / f"python-{name}"
    found = home / "bin" / "python"
    if found.exists():
        return found
    home.parent.mkdir(parents=True, exist_ok=True)
    with locked(home.with_name(f".{home.name}.lock"), BUILD_SECONDS):
        if not found.exists():
            _build(home, wanted, file)
    return found


def _wanted(python: Python, folder: Path | None) -> tuple[list[str], Path | None]:
    wanted = [requirement for extra in python.extras for requirement in _of_extra(extra)]
    if isinstance(python.requirements, list):
        return [*wanted, *python.requirements], None
    if python.requirements is None:
        return wanted, None
    file = ((folder or Path()) / python.requirements).resolve()
    if folder is None or not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise ConfigError(f"there is no file {python.requirements}", where="profile.python.requirements",
                          hint="a path in the pipeline's folder")  # fmt: skip
    return wanted, file


def _of_extra(extra: str) -> list[str]:
    known = importlib.metadata.metadata("edgewright").get_all("Provides-Extra") or []
    if extra not in known:
        raise ConfigError(f"Edgewright has no extra {extra}", where="profile.python.extras",
                          hint=f"there are: {', '.join(sorted(known))}")  # fmt: skip
    found = importlib.metadata.requires("edgewright") or []
    return [text.partition(";")[0].strip() for text in found if extra in _EXTRA.findall(text)]


def _build(home: Path, wanted: list[str], file: Path | None) -> None:
    log.info("building an environment of its own, once: %s", home)
    for left in home.parent.glob(f".tmp-{home.name}-*"):
        shutil.rmtree(left, ignore_errors=True)  # of a builder that was killed; nobody else holds the lock
    temporary = home.with_name(f".tmp-{home.name}-{uuid.uuid4().hex}")
    python = str(temporary / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    try:
        _call([sys.executable, "-m", "venv", str(temporary)])
        _see_ours(temporary)
        if file:
            _call([*pip, "-r", str(file)])
        if wanted:
            _call([*pip, *wanted])
        temporary.rename(home)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _see_ours(home: Path) -> None:
    """Put the worker's libraries behind those of the environment."""
    base = {"base": str(home), "platbase": str(home)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=base))
    behind = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(__file__).parents[2])}
    # addsitedir, so that an editable installation's own .pth files count, too
    lines = [f"import site; site.addsitedir({place!r})" for place in sorted(behind)]
    (site / "edgewright_worker.pth").write_text("\n".join(lines) + "\n")


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 (our own arguments, no shell)
            command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"the environment was not built within {BUILD_SECONDS:.0f} s") from error
    if done.returncode:
        words = " | ".join(done.stderr.strip().splitlines()[-5:])
        raise Unavailable(f"the environment of python: could not be built: {words}",
                          hint="it needs the package index, and requirements that fit together")  # fmt: skip
