"""The Dockerfiles by BuildKit's own parser and linter, and what we ask of every image."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tools import demand

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "images").rglob("Dockerfile"))
IMAGES = ("step-cpu", "step-gpu", "notebook", "serving", "edge", "mlflow", "airflow", "airflow-spark", "spark")


def read(file: Path) -> dict[str, Any]:
    program = demand("dockerfile")
    done = subprocess.run([program], input=file.read_text(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_the_linter_of_buildkit_has_nothing_to_say(file: Path):
    assert read(file)["warnings"] == []


def test_images_end_as_a_user_without_rights_and_nothing_unpinned_gets_in():
    stages = {stage["Name"]: stage for stage in read(ROOT / "images" / "Dockerfile")["stages"]}
    for name in IMAGES:
        commands = [*stages[stages[name]["Base"]]["Commands"], *stages[name]["Commands"]]
        users = [command["Text"].split()[1] for command in commands if command["Name"] == "USER"]
        assert users[-1].split(":")[0] not in ("root", "0"), name
        assert any(command["Name"] == "LABEL" for command in stages[name]["Commands"]), name
        texts = " ".join(command["Text"] for command in stages[name]["Commands"])
        for stage in re.findall(r"--from=(\S+-libraries)", texts):
            assert any("write-sbom" in command["Text"] for command in stages[stage]["Commands"]), f"{name}: no SBOM"
    for stage in stages.values():
        for command in stage["Commands"]:
            if re.search(r"pip\b.* install ", command["Text"]) and "/wheels" not in command["Text"]:
                assert "--require-hashes" in command["Text"], command["Text"]
    for name in ("serving", "mlflow"):
        assert any(command["Name"] == "HEALTHCHECK" for command in stages[name]["Commands"])


def test_what_is_copied_is_there_and_is_sent_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    for stage in read(ROOT / "images" / "Dockerfile")["stages"]:
        for command in stage["Commands"]:
            if command["Name"] == "COPY" and "--from" not in command["Text"]:
                for source in [word for word in command["Text"].split()[1:-1] if not word.startswith("--")]:
                    assert (ROOT / source).exists(), source
                    assert source.split("/")[0] in sent, source


def test_every_lock_is_hashed_and_names_no_addresses():
    locks = sorted((ROOT / "requirements" / "images").glob("*.txt"))
    assert {lock.stem for lock in locks} == {*IMAGES, "build", "sbom"} - {"airflow-spark", "spark"}, (
        "those have the target's lock"
    )
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text, lock
        pinned = re.findall(r"^[a-z0-9][^ \n]*==\S+", text, re.M)
        assert pinned, lock
        assert text.count("--hash=sha256:") >= len(pinned), lock


def test_locks_agree_with_what_is_tested_here():
    def versions(file: Path) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, version in re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==([^ ;\\]+)", file.read_text(), re.M):
            found.setdefault(name, set()).add(version)
        return found

    ours = versions(ROOT / "requirements" / "edgewright.txt")
    for lock in (ROOT / "requirements" / "images").glob("*.txt"):
        for name, found in versions(lock).items():
            assert name not in ours or found <= ours[name], f"{lock.name}: {name}"


def test_the_chart_and_compose_use_images_that_there_are():
    values = yaml.safe_load((ROOT / "helm" / "edgewright" / "values.yaml").read_text())
    used = {values[part]["image"]["repository"] for part in ("serving", "mlflow", "streams")}
    used |= set(re.findall(r"image: (edgewright/[a-z-]+)", (ROOT / "docker-compose.yml").read_text()))
    assert used <= {f"edgewright/{name}" for name in IMAGES}
