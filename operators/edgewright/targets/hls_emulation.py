"""The emulation of an hls4ml project: compiled once for each structure, with the parameters of each model.

A project's C++ holds the structure; in the emulation its weights are read from files when it first runs. So models that
differ in their parameters alone share one compiled library. Whether they do is not guessed: the key is what the
preprocessor hands to the compiler, weights and all, with the compiler's version and flags.

Runs in the target's own environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

_SCRIPT = "build_lib.sh"
_VARIABLE = "EDGEWRIGHT_HLS_WEIGHTS"
_WEIGHTS = re.compile(r"^WEIGHTS_DIR=.*$", re.MULTILINE)
_STAMP = re.compile(r"^LIB_STAMP=.*$", re.MULTILINE)
_COMPILE = re.compile(r" -c (\S+)\.cpp -o \S+$", re.MULTILINE)
_KEPT = 20


def structure_of(folder: Path) -> str:
    """Return the digest of a project's sources without its parameters: what a synthesis would take as it was."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.cpp"), *folder.glob("*.tcl"), *(folder / "firmware").glob("*.[ch]*")]):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def load_emulation(project: Any, folder: Path, kept: Path | None) -> bool:
    """Have a written project answer ``predict``.

    Args:
        project: hls4ml's model.
        folder: Where it was written.
        kept: Folder of libraries that were compiled before; ``None``: nothing is kept.

    Returns:
        Whether a library of before was taken, so that nothing was compiled.

    Raises:
        RuntimeError: the project does not compile.
    """
    script = (folder / _SCRIPT).read_text()
    if kept is None or len(_WEIGHTS.findall(script)) != 1 or len(_COMPILE.findall(script)) != 2:
        project._compile()  # a script that is not known here
        return False
    # an expression: where the weights are is asked for when they are read
    script = _WEIGHTS.sub(f"WEIGHTS_DIR='getenv(\"{_VARIABLE}\")'", script)
    library = kept / f"{_key(script, folder)}.so"
    own = folder / "firmware" / "emulation.so"
    try:
        shutil.copyfile(library, own)  # a copy, for another task may tidy up while this one runs
        os.utime(library)
        reused = True
    except FileNotFoundError:
        _compile(script, folder, own)
        _keep(own, library)
        reused = False
    os.environ[_VARIABLE] = str((folder / "firmware" / "weights").resolve())
    project._top_function_lib = ctypes.cdll.LoadLibrary(str(own.resolve()))
    return reused


def _key(script: str, folder: Path) -> str:
    """Return the digest of everything that the library follows from."""
    lines = [line for line in script.splitlines() if "-shared" not in line and not line.startswith("rm ")]
    _run(_COMPILE.sub(r" -E -P \1.cpp -o \1.i", "\n".join(lines)), folder)
    version = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout  # noqa: S607
    digest = hashlib.sha256(version + _STAMP.sub("", script).encode())
    for path in sorted(folder.rglob("*.i")):
        digest.update(path.read_bytes())
        path.unlink()
    return digest.hexdigest()


def _compile(script: str, folder: Path, own: Path) -> None:
    _run(script, folder)
    (made,) = (folder / "firmware").glob("*.so")
    made.rename(own)


def _keep(own: Path, library: Path) -> None:
    """Keep a library for the next model of its structure, and the newest twenty in all."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another task tidies up, too
        for old in sorted(library.parent.glob("*.so"), key=lambda path: path.stat().st_mtime)[: 1 - _KEPT]:
            old.unlink()
    temporary = library.with_name(f".{uuid.uuid4().hex}.tmp")
    shutil.copyfile(own, temporary)
    temporary.rename(library)


def _run(script: str, folder: Path) -> None:
    path = folder / "emulate.sh"
    path.write_text(script)
    done = subprocess.run(["bash", path.name], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603,S607
    path.unlink()
    if done.returncode:
        raise RuntimeError(f"the emulation does not compile: {done.stderr.strip()[-300:]}")
