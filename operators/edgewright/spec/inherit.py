"""Which files a pipeline inherits from: ``defaults.yaml`` of its folder and the folders around it, and ``include:``.

Both stay inside of the pipelines' folder: the nearest one upwards that is called ``dags``, or holds ``.airflowignore``,
``.git``, a ``defaults.yaml`` with ``root: true``, or the mark of a Dag bundle's version. Without any of these it is the
folder around the pipeline's.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from edgewright.artifacts.digest import sha256_bytes
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.nodes import read

DEFAULTS = ("defaults.yaml", "defaults.yml")
#: Lies at the top of every version that the Dag bundle makes.
MARK = ".edgewright-root"
_TOPS = (".airflowignore", ".git", MARK)
_DEEPEST = 10


@dataclass
class Layer:
    """One file that a pipeline is read from.

    Attributes:
        file: The file.
        document: What it says.
        faults: What is wrong with its YAML, and where its values are.
        sha256: Digest of its text.
    """

    file: FilePath
    document: dict[str, Any] = field(default_factory=dict)
    faults: Faults = field(default_factory=lambda: Faults(""))
    sha256: str = ""


def defaults_of(folder: FilePath) -> list[Layer]:
    """Return the ``defaults.yaml`` that hold for a folder, the outermost first."""
    return [_fresh(layer) for layer in _climb(folder)[0][::-1]]


def root_of(folder: FilePath) -> FilePath:
    """Return the folder that everything a pipeline reads stays in."""
    return FilePath(_climb(folder)[1])


def _climb(folder: FilePath) -> tuple[list[Layer], str]:
    """Return the defaults from a folder upwards, and where the search ended."""
    place = os.path.abspath(folder)
    found: list[tuple[str, Layer]] = []
    start = place
    for _ in range(_DEEPEST):
        layer = _defaults_in(place)
        if layer is not None:
            found.append((place, layer))
        name = os.path.basename(place)
        says = layer is not None and layer.document.get("root") is True
        if name == "dags" or says or any(os.path.exists(f"{place}/{top}") for top in _TOPS):
            return [layer for _, layer in found], place
        if not name:
            break
        place = os.path.dirname(place)
    around = os.path.dirname(start)
    return [layer for at, layer in found if at in (start, around)], around


def _defaults_in(folder: str) -> Layer | None:
    """Return the ``defaults.yaml`` of one folder."""
    for name in DEFAULTS:
        try:
            state = os.stat(f"{folder}/{name}")
        except OSError:
            continue
        return _layer(FilePath(folder, name), state.st_mtime_ns, state.st_size)
    return None


def _fresh(layer: Layer) -> Layer:
    """Return a layer whose faults may be added to: what one pipeline finds is not for the next one."""
    return replace(layer, faults=layer.faults.clone())


@functools.lru_cache(maxsize=128)
def _layer(file: FilePath, mtime: int, size: int) -> Layer:
    """Return what a file says; read once for all pipelines that inherit from it."""
    faults = Faults(str(file))
    try:
        text = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        faults.add(
            (), f"cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}", code="unreadable"
        )
        return Layer(file, {}, faults)
    document = read(text, faults) if text.strip() else {}
    if document is None or not isinstance(document, dict):
        if not faults.found:
            faults.add((), "must be a mapping", allowed="the keys of a pipeline", code="type")
        document = {}
    return Layer(file, document, faults, sha256_bytes(text.encode()))


class Includes:
    """Reads what documents include, and what that includes, each file once.

    Args:
        file: The pipeline's.
    """

    def __init__(self, file: FilePath) -> None:
        self._root = root_of(file.parent)
        self._own = file.resolve()
        self._done: dict[FilePath, Layer] = {}

    def of(self, document: dict[str, Any], folder: FilePath, faults: Faults, around: tuple[FilePath, ...] = ()) -> None:
        """Read the files of one document's ``include:``; what is included comes before what includes it."""
        value = document.get("include")
        if value is None:
            return
        names = value if isinstance(value, list) else [value]
        for index, name in enumerate(names):
            place: Path = ("include", index) if isinstance(value, list) else ("include",)
            file = self._find(name, folder, place, faults)
            if file is None or file in self._done:
                continue
            if file in (*around, self._own):
                faults.add(place, f"{name} includes itself", allowed="no circle of includes", code="cycle")
                continue
            state = file.stat()
            layer = _fresh(_layer(file, state.st_mtime_ns, state.st_size))
            self.of(layer.document, file.parent, layer.faults, (*around, file))
            self._done[file] = layer

    @property
    def layers(self) -> list[Layer]:
        """What was included, in the order in which it counts."""
        return list(self._done.values())

    def _find(self, name: Any, folder: FilePath, place: Path, faults: Faults) -> FilePath | None:
        if not isinstance(name, str) or not name:
            faults.add(place, f"{name!r} is no file", allowed="a path relative to this file", code="type")
            return None
        try:
            file = (folder / name).resolve()
            inside, there = file.is_relative_to(self._root.resolve()), file.is_file()
        except (OSError, ValueError):
            inside, there = True, False
        if not inside:
            message = f"{name} leads out of the pipelines' folder"
            faults.add(place, message, allowed="a file inside of it", code="path")
            return None
        if not there:
            here = _yaml_files((folder / name).parent)
            faults.add(place, f"no such file: {name}", allowed=f"YAML files here are: {listing(here)}",
                       suggestion=near(name, here), code="missing-file")  # fmt: skip
            return None
        return file


def _yaml_files(folder: FilePath) -> list[str]:
    try:
        return sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    except (OSError, ValueError):
        return []
