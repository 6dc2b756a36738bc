"""Bundles of one model in three versions, and a node as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.releases import release_folder

from edgewright.bundles import build_bundle, write_archive
from edgewright.bundles.signing import sign

ROW = {"a": 0.5, "b": None, "c": 1.0}
PATIENCE = 120.0


def eventually(condition: Callable[[], Any], what: str = "it") -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


class Bundles:
    """Writes bundles of the model ``pump``: each version has other weights."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.key, self.public = root / "key.pem", root / "key.pub"
        command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self.key)]
        subprocess.run(command, check=True, capture_output=True)
        command = ["openssl", "ec", "-in", str(self.key), "-pubout", "-out", str(self.public)]
        subprocess.run(command, check=True, capture_output=True)

    def folder(self, version: int, name: str = "pump") -> Path:
        place = self._root / f"{name}-{version}"
        if not place.exists():
            release = release_folder(self._root / f"release-{name}-{version}", name, weight=float(version))[0]
            place.mkdir()
            build_bundle(release, place, target="onnx", version=str(version))
        return place

    def write(self, into: Path, version: int, *, signed: bool = True, name: str = "pump", called: str = "") -> Path:
        folder = self.folder(version, name)
        if signed and not (folder / "model.sig").exists():
            beside = self._root / f"{name}-{version}.sig"
            sign(folder, beside, private_key=self.key)
            beside.rename(folder / "model.sig")
        if not signed:
            (folder / "model.sig").unlink(missing_ok=True)
        into.mkdir(parents=True, exist_ok=True)
        path = into / (called or f"{name}-{version}-onnx.tar")
        write_archive(folder, path)
        return path


class Process:
    """``edgewright edge run`` in a process of its own."""

    def __init__(self, home: Path, source: str, *options: str, python: str = sys.executable) -> None:
        self.home, self.ready = home, home.with_suffix(".ready")
        self.ready.unlink(missing_ok=True)
        command = [
            python, "-m", "edgewright.cli.main", "edge", "run", "--source", source, "--target", "onnx",
            "--home", str(home), "--port", "0", "--poll", "0.1", "--name", "n1", "--ready-file", str(self.ready),
        ]  # fmt: skip
        self.log = home.with_suffix(".log").open("ab")
        self.process = subprocess.Popen([*command, *options], stdout=self.log, stderr=self.log, env=dict(os.environ))

    @property
    def text(self) -> str:
        return self.home.with_suffix(".log").read_text()

    def url(self) -> str:
        def listening() -> str | None:
            if self.process.poll() is not None:
                raise AssertionError(f"the node ended: {self.text}")
            return json.loads(self.ready.read_text())["url"] if self.ready.exists() else None

        return str(eventually(listening, "listening"))

    def get(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url() + path, data, {"content-type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def version(self) -> str | None:
        model = self.get("/health")[1]["model"]
        return model and str(model["version"])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(60)
        self.log.close()
        return code
