"""The lock of a node, installed as docs/edge.md says: small, and enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.edge import ROW, Bundles, Process, eventually

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
LIMIT = 150 << 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_is_small_and_has_what_it_needs(bundles: Bundles, tmp_path: Path) -> None:
    if not UV.exists():
        pytest.skip("no uv beside this interpreter: make install-dev")

    def run(*command: str | Path) -> None:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    run(UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", tmp_path, ROOT)
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "node")
    python = tmp_path / "node/bin/python"
    install = (UV, "pip", "install", "--quiet", "--python", python)
    run(*install, "--require-hashes", "-r", ROOT / "requirements/edge.txt")
    run(*install, "--no-deps", next(tmp_path.glob("*.whl")))
    size = sum(
        path.stat().st_size for path in (tmp_path / "node").rglob("*") if path.is_file() and not path.is_symlink()
    )
    print(f"{size / 2**20:.1f} MiB")
    assert size < LIMIT
    bundles.write(tmp_path / "offered", 1)
    node = Process(tmp_path / "home", str(tmp_path / "offered"), "--key", str(bundles.public), python=str(python))
    try:
        eventually(lambda: node.version() == "1", "the bundle")
        assert node.get("/invocations", {"dataframe_records": [ROW]})[0] == 200
    finally:
        node.stop()
