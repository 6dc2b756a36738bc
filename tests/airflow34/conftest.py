"""An environment with Airflow 3.4, made once a lock and kept outside the work tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "airflow34.txt"
DESCRIBE = Path(__file__).with_name("describe.py")
OURS = "edgewright.factory.importer.PipelineImporter"


@dataclass
class Airflow:
    """One release of Airflow in an environment of its own; every call is a process."""

    python: Path
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str | Path, importer: str | None = OURS, **settings: str) -> str:
        """Run a program of the environment and return what it writes; a failure shows it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        environment.pop("VIRTUAL_ENV", None)
        environment |= {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "EDGEWRIGHT_HOME": str(self.home / "edgewright"),
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            **self.environment,
            **settings,
        }
        if importer and self.environment:
            environment["AIRFLOW__DAG_PROCESSOR__DAG_IMPORTER_CONFIGS"] = json.dumps([{"classpath": importer}])
        arguments = [str(self.python), *(str(part) for part in command)]
        ended = subprocess.run(
            arguments, env=environment, cwd=self.home, capture_output=True, text=True, timeout=240, check=False
        )
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        return ended.stdout

    def airflow(self, *arguments: str, importer: str | None = OURS, **settings: str) -> str:
        """Run Airflow's command line."""
        return self.run("-m", "airflow", *arguments, importer=importer, **settings)

    def describe(self, *arguments: str | Path, importer: str | None = OURS, **settings: str) -> dict[str, Any]:
        """Return the answer of describe.py."""
        answer: dict[str, Any] = json.loads(
            self.run(DESCRIBE, *arguments, importer=importer, **settings).strip().splitlines()[-1]
        )
        return answer


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _make(uv: str, place: Path) -> None:
    """Make the environment beside its place and move it there when it is whole.

    Its programs are called through its Python, so that it may move.
    """
    temporary = place.with_name(f"{place.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for command in (
            [uv, "venv", "--quiet", "--python", sys.executable, str(temporary)],
            [uv, "pip", "install", "--quiet", "--python", str(temporary / "bin" / "python"), "--require-hashes",
             "--no-deps", "-r", str(LOCK)],
        ):  # fmt: skip
            ended = subprocess.run(command, capture_output=True, text=True, timeout=230, check=False)
            if ended.returncode:
                pytest.skip(f"Airflow 3.4 cannot be installed here: {ended.stderr.strip()[-300:]}")
    except subprocess.TimeoutExpired:
        pytest.skip("Airflow 3.4 cannot be installed here: no end after 230 s")
    temporary.rename(place)


@pytest.fixture(scope="session")
def environment34() -> Path:
    """Return the Python of an environment with Airflow 3.4 and without Edgewright or machine-learning libraries."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    place = Path.home() / ".cache" / "edgewright" / f"airflow34-{digest}"
    if not (place / "bin" / "python").exists():
        uv = _uv()
        if uv is None:
            pytest.skip("uv is not here, and makes the environment with Airflow 3.4")
        place.parent.mkdir(parents=True, exist_ok=True)
        _make(uv, place)
    return place / "bin" / "python"


@pytest.fixture(scope="session")
def airflow34(environment34: Path, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Airflow 3.4, with Edgewright on its path and not installed."""
    home = tmp_path_factory.mktemp("airflow34")
    return Airflow(environment34, home, {"PYTHONPATH": str(ROOT / "operators")})


@pytest.fixture(scope="session")
def airflow33(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """The Airflow of this environment, in processes of its own."""
    return Airflow(Path(sys.executable), tmp_path_factory.mktemp("airflow33"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file of a bundle."""

    def writer(name: str, text: str) -> Path:
        path = tmp_path / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return writer
