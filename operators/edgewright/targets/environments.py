"""Virtual environments of targets: built once from a hashed lock, named by the lock's digest, shared by all tasks.

A compiler such as OpenVINO's or Quark pins libraries that Airflow or another compiler needs in other versions, so each
has an environment of its own below ``<home>/environments`` (``EDGEWRIGHT_TARGET_ENVIRONMENTS`` for another place, such
as a folder of an image). ``EDGEWRIGHT_TARGET_PYTHON_<NAME>`` names an interpreter that an administrator has prepared;
it is then taken as it is. Tools that are no targets, such as Spark, have their environments the same way
(``EDGEWRIGHT_PYTHON_SPARK``).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import Busy, ConfigError, Unavailable
from edgewright.installation import find_home
from edgewright.spec.steps.target_options import FILES
from edgewright.targets.base import Target, find_target
from edgewright.targets.gpus import nvidia_gpus

log = logging.getLogger("edgewright.targets")

_BUILD_SECONDS = 1800.0


@dataclass(frozen=True)
class Tool:
    """What is no target and still has an environment of its own, such as Spark.

    Attributes:
        name: What messages call it.
        environment: Name of its hashed lock.
    """

    name: str
    environment: str | None


def lock_file(target: Target | Tool) -> Path:
    """Return the hashed lock of a target's environment.

    Raises:
        ConfigError: the target has none, or the file does not exist.
    """
    name = target.environment or ""
    here = Path(__file__).parent
    # an installed wheel has the locks beside this file, a checkout in its own folder
    places = [Path(name), here / "locks" / f"{name}.txt", here.parents[2] / "requirements" / "targets" / f"{name}.txt"]
    for path in places:
        if name and path.is_file():
            return path
    raise ConfigError(f"the lock of {_words(target)} is missing: {name}", where=str(places[-1]))


def lock_digest(target: Target | Tool) -> str:
    """Return the sha256 of a target's lock."""
    return hashlib.sha256(lock_file(target).read_bytes()).hexdigest()


def _words(target: Target | Tool) -> str:
    return target.name if isinstance(target, Tool) else f"the target {target.name}"


def _variable(target: Target | Tool) -> str:
    kind = "" if isinstance(target, Tool) else "TARGET_"
    return f"EDGEWRIGHT_{kind}PYTHON_{target.name.upper().replace('-', '_')}"


def prepared_python(target: Target | Tool) -> Path | None:
    """Return the interpreter that an administrator has named for a target.

    Raises:
        ConfigError: there is no such file.
    """
    variable = _variable(target)
    value = os.environ.get(variable)
    if not value:
        return None
    if not os.access(value, os.X_OK):
        raise ConfigError(f"{variable} names no program: {value}", hint="the path of an environment's bin/python")
    return Path(value)


def environment_folder(target: Target | Tool) -> Path:
    """Return where a target's environment is, or will be."""
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    return _root() / f"{Path(target.environment or '').stem}-{version}-{lock_digest(target)[:12]}"


def reuse_folder(target: Target) -> Path:
    """Return where a target keeps what another compile may use again."""
    return _root() / f"reuse-{target.name}"


def _root() -> Path:
    root = os.environ.get("EDGEWRIGHT_TARGET_ENVIRONMENTS")
    return Path(root) if root else find_home() / "environments"


def environment_python(target: Target | Tool, *, timeout: float = _BUILD_SECONDS) -> Path:
    """Return the interpreter of a target's environment; build it where it does not exist yet.

    Args:
        target: One with an ``environment``.
        timeout: Seconds to wait for another process that builds it, and for the build.

    Raises:
        Busy: another process was building it all the time.
        Unavailable: its packages could not be installed; trying again may help.
    """
    prepared = prepared_python(target)
    if prepared is not None:
        return prepared
    folder = environment_folder(target)
    python = folder / "bin" / "python"
    if python.exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), timeout):
        if not python.exists():
            _build(target, folder, timeout)
    return python


@contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold a file's lock, which the kernel gives back when a process dies.

    Raises:
        Busy: another process held it all the time.
    """
    deadline = time.monotonic() + timeout
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise Busy(f"another process is building {path.stem.strip('.')}", hint="try again later") from None
                time.sleep(0.5)
        yield


def _build(target: Target | Tool, folder: Path, timeout: float) -> None:
    started = time.monotonic()
    log.info("building the environment of %s, once: %s", _words(target), folder)
    for left in folder.parent.glob(f".tmp-{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)  # of a builder that was killed; nobody else holds the lock
    temporary = folder.with_name(f".tmp-{folder.name}-{uuid.uuid4().hex}")
    try:
        for command in _commands(temporary, lock_file(target)):
            _call(command, target, timeout)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("the environment of %s was built in %.0f s", _words(target), time.monotonic() - started)


def _commands(folder: Path, lock: Path) -> list[list[str]]:
    python = str(folder / "bin" / "python")
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv:
        # links into uv's cache would not outlive it in an image, so files are copied or cloned there by uv's default
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", str(lock)],
        ]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", *quiet, "--require-hashes", "-r", str(lock)],
    ]


def _call(command: list[str], target: Target | Tool, timeout: float) -> None:
    try:
        done = subprocess.run(  # noqa: S603 (our own arguments, no shell)
            command, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"the environment of {_words(target)} was not built within {timeout:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()[-8:]
        raise Unavailable(
            f"the environment of {_words(target)} could not be built: {' | '.join(lines)}",
            hint="it needs the package index; or prepare an environment and name its interpreter in "
            f"{_variable(target)}",
        )


def state(config: Any, context: Any) -> dict[str, Any]:
    """Return what a compile reads beside its inputs (part of the cache key): the lock of its environment, a file."""
    target = find_target(config.target)
    found: dict[str, Any] = {}
    if target.environment:
        prepared = prepared_python(target)
        found = {"environment": lock_digest(target), "python": str(prepared) if prepared else None}
    if target.gpu:
        found["gpus"] = nvidia_gpus()
    for name in FILES:
        if isinstance(config.options.get(name), str):
            found[name] = hashlib.sha256(context.path(config.options[name]).read_bytes()).hexdigest()
    return found
