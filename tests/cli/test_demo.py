"""The demo and the stack as users meet them: from an empty home, after a kill -9, with a pipeline that is broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgewright.cli.stack.processes import listening
from edgewright.cli.stack.state import StackState

# each starts and stops whole stacks; what `make test` needs of one is in tests/stack
pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
EDGEWRIGHT = Path(sys.executable).parent / "edgewright"


@dataclass
class Place:
    """A home folder, a copy of the pipelines, and the command line."""

    home: Path
    dags: Path

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``edgewright ARGUMENTS``."""
        given = {name: value for name, value in os.environ.items() if not name.startswith("EDGEWRIGHT_")}
        return subprocess.Popen(
            [str(EDGEWRIGHT), *arguments],
            env={**given, "EDGEWRIGHT_HOME": str(self.home), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run ``edgewright ARGUMENTS``; return the exit code and what it printed."""
        process = self.begin(*arguments)
        text, _ = process.communicate(timeout=300)
        return process.returncode, text

    def state(self) -> StackState:
        found = StackState.load(self.home)
        assert found is not None
        return found

    def left(self) -> list[psutil.Process]:
        """Return the processes of this home's stack, also where its file is gone."""
        return (StackState.load(self.home) or StackState(home=str(self.home), dags="")).members()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("demo").resolve()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dags" / "bracelet", folder / "dags" / "bracelet", ignore=ignored)
    made = Place(folder / "home", folder / "dags")
    yield made
    made.run("down")


def read_until(process: subprocess.Popen[str], text: str, seconds: float = 240) -> str:
    assert process.stdout is not None
    read = ""
    deadline = time.monotonic() + seconds
    while text not in read:
        line = process.stdout.readline()
        assert line, f"{text!r} never came:\n{read}"
        assert time.monotonic() < deadline, read
        read += line
    return read


def demo_in_a_terminal(place: Place) -> tuple[int, str]:
    """Run the demo on a terminal, press Ctrl-C when it says that it stays up; return exit code and text."""
    here, there = os.openpty()
    process = subprocess.Popen(
        [str(EDGEWRIGHT), "demo", "--dags", str(place.dags)],
        env={**os.environ, "EDGEWRIGHT_HOME": str(place.home), "NO_COLOR": "1", "DEMO_EXIT": ""},
        stdin=there, stdout=there, stderr=there, start_new_session=True,
    )  # fmt: skip
    os.close(there)
    text = b""
    asked = False
    while True:
        try:
            data = os.read(here, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        text += data
        if b"Ctrl-C stops it" in text and not asked:
            asked = True
            assert len(place.state().running()) == 6
            time.sleep(1)
            process.send_signal(signal.SIGINT)
    os.close(here)
    return process.wait(timeout=60), text.decode().replace("\r\n", "\n")


def test_a_demo_works_after_the_first_one_was_killed(place: Place) -> None:
    first = place.begin("demo", "--dags", str(place.dags))
    read_until(first, "running bracelet")
    code, text = place.run("demo", "--dags", str(place.dags))
    assert code == 75, "two demos at once"
    assert f"PID {first.pid}" in text
    first.kill()
    first.wait()
    orphans = place.left()
    assert len(orphans) > 6
    assert place.state().is_orphaned()

    code, text = demo_in_a_terminal(place)

    assert code == 0, text
    assert "clearing away an earlier stack" in text
    assert not [process for process in orphans if process.is_running()]
    assert re.search(r"\[7/7\] live +success", text)
    assert re.search(r"dataset +303 rows \(train 227, test 76\) +sha256 [0-9a-f]{12}", text)
    assert re.search(r"passed +quality: accuracy 0\.8\d+ >= 0\.75", text)
    assert re.search(r"onnx-int8 +[\d.]+ KiB, [\d.]+ µs a row", text)
    assert re.search(r"registry +bracelet version \d+ as champion", text)
    assert re.search(r'answer +\{"predictions": \[1\]', text)
    assert re.search(r"airflow +http://127\.0\.0\.1:\d+ +login: admin / \S+", text)
    assert place.left() == []


def test_a_task_that_fails_ends_the_demo_with_its_log(place: Place) -> None:
    code_file = place.dags / "bracelet" / "model.py"
    before = code_file.read_text()
    code_file.write_text(before + "\n\ndef fit(data, **args):\n    raise RuntimeError('out of luck')\n")
    try:
        code, text = place.run("demo", "--dags", str(place.dags))
    finally:
        code_file.write_text(before)
    assert code == 1, text
    assert "the end of the log of task model" in text
    assert "out of luck" in text
    assert re.search(r"error: run \S+ of bracelet failed: model", text)
    assert place.left() == []


def test_a_pipeline_with_a_fault_ends_the_demo_with_the_fault(place: Place) -> None:
    file = place.dags / "bracelet" / "pipeline.yaml"
    before = file.read_text()
    file.write_text(before.replace("uses: train", "uses: trian"))
    try:
        # Airflow still knows the pipeline as it was before; that is not what shall run
        code, text = place.run("demo", "--dags", str(place.dags))
    finally:
        file.write_text(before)
    assert code == 1, text
    assert 'did you mean "train"' in text
    assert place.left() == []


def test_up_mends_a_stack_of_which_a_part_was_killed(place: Place) -> None:
    code, text = place.run("up", "--dags", str(place.dags), "--no-schedules")
    assert code == 0, text
    before = place.state()
    assert {address for addresses in listening(before).values() for address in addresses} == {"127.0.0.1"}
    code, text = place.run("up", "--dags", str(place.dags))
    assert code == 0
    assert "up already" in text
    assert place.state() == before

    scheduler = next(part for part in before.parts if part.name == "scheduler")
    os.kill(scheduler.pid, signal.SIGKILL)
    code, text = place.run("status", "--json")
    assert code == 69
    healths: dict[str, Any] = {part["name"]: part["health"] for part in json.loads(text)["parts"]}
    assert healths.pop("scheduler") == "gone"
    assert set(healths.values()) == {"healthy"}

    code, text = place.run("up", "--dags", str(place.dags), "--no-schedules")
    assert code == 0, text
    assert "clearing away an earlier stack" in text
    assert len(place.state().running()) == 6
    code, text = place.run("trigger", "bracelet", "--wait", "--param", "alpha=0.002")
    assert code == 0, text

    code, text = place.run("down")
    assert (code, text.splitlines()[-1]) == (0, "stopped")
    assert place.left() == []
    assert place.run("status")[0] == 69


@pytest.mark.slow
def test_a_port_that_is_lost_after_it_was_chosen_is_replaced(place: Place) -> None:
    starting = place.begin("up", "--dags", str(place.dags), "--no-schedules")
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stolen = _first_port(place, "mlflow")
        thief.bind(("127.0.0.1", stolen))
        thief.listen()
        text, _ = starting.communicate(timeout=500)
    assert starting.returncode == 0, text
    assert "another program took one of the ports meanwhile" in text
    assert place.state().urls["mlflow"] != f"http://127.0.0.1:{stolen}"
    assert place.run("status")[0] == 0
    assert place.run("down")[0] == 0
    assert place.left() == []


def _first_port(place: Place, name: str) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = StackState.load(place.home)
        for part in state.parts if state else ():
            if part.name == name and part.port:
                return part.port
        time.sleep(0.05)
    raise AssertionError(f"{name} was never started")
