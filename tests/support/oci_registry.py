"""A real OCI registry: Debian's docker-registry, or CNCF distribution as `make tools` builds it."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.mlflow_server import free_port
from support.tools import FOLDER

#: User edge, password secret, as htpasswd -B writes it.
HTPASSWD = "edge:$2b$04$WEXI8WplT/8dXpX/qNakgemNI98J.Ji4QTsolJYSZSVgMYoUyJkku\n"


class OciRegistry:
    """A registry process on loopback; skips the test where there is no such program."""

    def __init__(self, folder: Path, *, login: bool = False) -> None:
        program = shutil.which("docker-registry") or str(FOLDER / "registry")
        if not Path(program).exists():
            pytest.skip("no OCI registry here: apt-get install docker-registry, or make tools")
        folder.mkdir(parents=True, exist_ok=True)
        self.host = f"127.0.0.1:{free_port()}"
        auth = ""
        if login:
            (folder / "htpasswd").write_text(HTPASSWD)
            auth = f"auth: {{htpasswd: {{realm: edge, path: {folder / 'htpasswd'}}}}}\n"
        (folder / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: warn}}\n{auth}storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )
        self._program, self._folder = program, folder
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            command = [self._program, "serve", str(self._folder / "config.yml")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.host}/v2/", timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
