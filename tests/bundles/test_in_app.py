"""The examples of docs/in-app.md load a bundle as they stand there, and give the scores of its golden rows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.releases import release_folder

from edgewright.bundles import build_bundle, write_archive

PAGE = (Path(__file__).parents[2] / "docs" / "in-app.md").read_text()
RUNTIME = "onnxruntime-web@1.30.0"


def snippet(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A folder with an unpacked bundle in ``bracelet``."""
    release = release_folder(tmp_path / "release", "bracelet", description="Alarm")[0]
    content = tmp_path / "content"
    content.mkdir()
    build_bundle(release, content, target="onnx", version="7")
    write_archive(content, tmp_path / "bracelet.tar")
    place = tmp_path / "app"
    with tarfile.open(tmp_path / "bracelet.tar") as archive:
        archive.extractall(place / "bracelet", filter="data")
    return place


def expected(place: Path) -> np.ndarray:
    return np.array(json.loads((place / "bracelet" / "golden.json").read_text())["outputs"])


def test_the_python_snippet_scores(unpacked: Path):
    code = snippet("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    golden = "json.load(open('bracelet/golden.json'))['inputs']"
    done = subprocess.run([sys.executable, "-c", f"{code}\nprint(json.dumps(score({golden}).tolist()))"],
                          cwd=unpacked, capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), expected(unpacked), atol=1e-5)


@pytest.fixture(scope="session")
def modules() -> Path:
    """Node's modules with ONNX Runtime, kept outside of the work tree; made where npm can be asked."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewright" / "npm" / RUNTIME
    if not (place / "node_modules").is_dir():
        temporary = place.with_name(f".{place.name}-{os.getpid()}")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]
        try:
            subprocess.run([*command, str(temporary), RUNTIME], check=True, capture_output=True, timeout=300)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            pytest.skip(f"npm does not give {RUNTIME}: {error}")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            temporary.rename(place)
    return place / "node_modules"


def test_the_javascript_snippet_scores(unpacked: Path, modules: Path):
    golden = 'JSON.parse(fs.readFileSync("bracelet/golden.json")).inputs'
    text = f"{snippet('js')}\nconsole.log(JSON.stringify(Array.from(await score({golden}))));\n"
    (unpacked / "app.mjs").write_text(text)
    (unpacked / "node_modules").symlink_to(modules)
    done = subprocess.run(["node", "app.mjs"], cwd=unpacked, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), expected(unpacked).ravel(), atol=1e-5)
