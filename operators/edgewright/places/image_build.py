"""``image: build``: an image from a Dockerfile of the pipeline's folder, made once for what it is made of.

The context is the Dockerfile and the files that the profile names, no more: the user's code travels with each request,
so that a changed line of it makes no new image.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from edgewright.errors import ConfigError
from edgewright.spec.profiles import Build

log = logging.getLogger("edgewright.places")
#: Repository of images that are made here.
REPOSITORY = "edgewright-built"
#: Seconds that a build may be silent: packages are downloaded meanwhile.
_SILENCE = 1800
#: Lines of a failed build that its error shows.
_SHOWN = 12
_DOCKERFILE = "Dockerfile"


def built(engine: Any, build: Build, folder: Path | None, *, fresh: bool = False) -> Any:
    """Return the image of a Dockerfile; it is made where the engine does not have it.

    Args:
        engine: Docker's client.
        build: What to make.
        folder: The pipeline's folder.
        fresh: Whether to look for newer base images, and build anew.

    Raises:
        ConfigError: a file is missing or leads out of the folder, or the build fails; with its last lines.
    """
    import docker.errors

    files = list(_files(build, folder))
    tag = f"{REPOSITORY}:{_digest(build, files)[:24]}"
    if not fresh:
        try:
            return engine.images.get(tag)
        except docker.errors.ImageNotFound:
            log.info("building %s from %s", tag, build.dockerfile)
    with tempfile.TemporaryFile() as context:
        _pack(files, context)
        answers = engine.api.build(
            fileobj=context, custom_context=True, dockerfile=_DOCKERFILE, tag=tag, target=build.target,
            buildargs=build.args, pull=fresh, rm=True, forcerm=True, decode=True, timeout=_SILENCE,
        )  # fmt: skip
        _follow(answers, build.dockerfile)
    return engine.images.get(tag)


def _files(build: Build, folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield what is sent to the engine, by name in the context."""
    if folder is None:
        raise ConfigError("image: build needs the pipeline's folder", where="profile.image")
    yield _DOCKERFILE, _place(folder, build.dockerfile)
    for name in sorted(set(build.files)):
        place = _place(folder, name)
        found = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
        for path in found:
            inside = path.resolve()
            if not inside.is_relative_to(folder.resolve()):
                raise ConfigError(f"{path.relative_to(place)} leads out of the pipeline's folder", where=name)
            if "__pycache__" not in path.parts:
                yield inside.relative_to(folder.resolve()).as_posix(), inside


def _place(folder: Path, name: str) -> Path:
    place = (folder / name).resolve()
    if not place.is_relative_to(folder.resolve()) or not place.exists():
        raise ConfigError(f"there is no {name}", where="profile.build", hint="a path in the pipeline's folder")
    return place


def _digest(build: Build, files: list[tuple[str, Path]]) -> str:
    contents = [[name, hashlib.sha256(path.read_bytes()).hexdigest()] for name, path in files]
    made_of = {"files": contents, "args": build.args, "target": build.target}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _pack(files: list[tuple[str, Path]], context: IO[bytes]) -> None:
    """Write the context, without times and owners: the engine's cache knows it again."""
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, path in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as opened:
                archive.addfile(entry, opened)
    context.seek(0)


def _follow(answers: Iterator[dict[str, Any]], dockerfile: str) -> None:
    """Log what the engine says while it builds.

    Raises:
        ConfigError: the build failed.
    """
    import docker.errors

    said: list[str] = []
    try:
        for answer in answers:
            lines = [line.rstrip() for line in str(answer.get("stream", "")).splitlines() if line.strip()]
            said = [*said, *lines][-_SHOWN:]
            for line in lines:
                log.info("%s", line)
            if "error" in answer:
                reason = str(answer["error"]).strip()
                raise ConfigError(f"the image cannot be built: {reason}", where=dockerfile, hint="\n".join(said))
    except docker.errors.APIError as error:
        reason = str(error.explanation or error)
        raise ConfigError(f"the image cannot be built: {reason}", where=dockerfile) from error
