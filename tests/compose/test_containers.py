"""``on: docker`` on a real engine (``make engine test-compose``): a training in a container, in an image made here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = """\
FROM edgewright/step-cpu:0.1.0
ARG WORD=none
COPY notes /notes
RUN test -s /notes/a.txt && echo made with $WORD
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("compose"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("DOCKER_HOST"), reason="no DOCKER_HOST: make engine, make test-compose"),
]
Edgewright = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a bracelet whose training runs in an image of its own Dockerfile."""
    place = tmp_path / "bracelet"
    shutil.copytree(ROOT / "dags" / "bracelet", place)
    (place / "notes").mkdir()
    (place / "notes" / "a.txt").write_text("a\n")
    (place / "Dockerfile").write_text(DOCKERFILE)
    write_profile(place, "{on: docker, image: build, build: {files: [notes], args: {WORD: care}}}")
    return place


def write_profile(place: Path, profile: str) -> None:
    text = (ROOT / "dags" / "bracelet" / "pipeline.yaml").read_text()
    text = text.replace("tasks:\n", f"profiles: {{box: {profile}}}\ntasks:\n", 1)
    (place / "pipeline.yaml").write_text(text.replace("    uses: train\n", "    uses: train\n    profile: box\n", 1))


@pytest.fixture
def edgewright(tmp_path: Path) -> Edgewright:
    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "EDGEWRIGHT_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "edgewright.cli.main", *map(str, arguments)]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=500, check=False)

    return call


def images() -> set[str]:
    import docker

    engine = docker.from_env()
    try:
        return {tag for image in engine.images.list("edgewright-built") for tag in image.tags}
    finally:
        engine.close()


def test_an_image_is_made_once_for_what_it_is_made_of(folder: Path, edgewright: Edgewright) -> None:
    before = images()
    done = edgewright("run", folder, "--until", "model", "--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "made with care" in done.stderr
    made = images() - before
    assert len(made) == 1
    model = folder / "model.py"
    model.write_text(model.read_text() + "\n# another line\n")
    done = edgewright("run", folder, "--until", "model", "--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "building" not in done.stderr
    assert images() - before == made
    (folder / "notes" / "a.txt").write_text("b\n")
    assert edgewright("run", folder, "--until", "model", "--no-cache").returncode == 0
    assert len(images() - before) == 2


def test_a_build_that_fails_says_how(folder: Path, edgewright: Edgewright) -> None:
    (folder / "Dockerfile").write_text(DOCKERFILE + "RUN echo this is why >&2 && exit 7\n")
    done = edgewright("run", folder, "--until", "model")
    assert done.returncode == 1
    assert "Dockerfile: the image cannot be built" in done.stderr
    assert "returned a non-zero code: 7" in done.stderr
    assert "this is why" in done.stderr


def test_what_the_engine_cannot_give_is_said_before_a_run(folder: Path, edgewright: Edgewright) -> None:
    assert edgewright("check", folder, "--against", "docker").returncode == 0
    write_profile(folder, '{on: docker, image: "edgewright/step-cpu:0.1.0", resources: {cpu: 4000}}')
    done = edgewright("check", folder, "--against", "docker")
    assert done.returncode == 1
    assert "cores, and the profile asks for 4000" in done.stdout
    write_profile(folder, '{on: docker, image: "edgewright/none:1", pull: never}')
    assert "the image edgewright/none:1 is not here" in edgewright("check", folder, "--against", "docker").stdout
    write_profile(folder, '{on: docker, image: "edgewright/step-cpu:0.1.0", gpus: all}')
    assert "has no GPUs" in edgewright("check", folder, "--against", "docker").stdout
