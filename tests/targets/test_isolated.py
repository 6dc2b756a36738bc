"""Compilers in environments of their own: built once, bounded, quiet about data."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgewright.errors import ConfigError, SystemFault, Unavailable, UserFault
from edgewright.targets import environments
from edgewright.targets.base import Job, Target
from edgewright.targets.isolated import compile_isolated, is_data

ROWS = {"X": np.array([[0.987654, 12.5], [-3.25, 0.125]], dtype=np.float32)}
SUPPORT = Path(__file__).parents[1] / "support"


def odd(**more: object) -> Target:
    return Target(
        "odd", "a compiler for tests", "odd_compiler", suffix=".bin", format="odd", requires=(), runtime="odd",
        environment="numpy", **more,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that an administrator has prepared: this one, and the compiler for tests."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{SUPPORT}" exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("EDGEWRIGHT_TARGET_PYTHON_ODD", str(script))


def job(tmp_path: Path, mood: str = "well") -> Job:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Job(b"abc", ROWS, {"mood": mood}, scratch)


def test_a_compiler_in_another_environment_answers(
    python: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    compiled, proof, seconds = compile_isolated(odd(), job(tmp_path), ROWS)
    assert compiled.data == b"cba"
    assert compiled.files == {"more/weights.bin": b"12"}
    assert (compiled.notes, compiled.tools) == (("a note",), {"odd": "1.0"})
    assert compiled.details == {"secrets": []}
    assert seconds >= 0
    assert proof is not None
    assert np.array_equal(proof.scores, ROWS["X"] * 2)
    assert 0 < proof.latency[1].p50 <= proof.latency[1].p99


def test_what_cannot_be_run_is_only_compiled(python: None, tmp_path: Path) -> None:
    compiled, proof, _ = compile_isolated(odd(), job(tmp_path), None)
    assert compiled.data == b"cba"
    assert proof is None


def test_calibration_data_never_reach_the_log(python: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        compile_isolated(odd(), job(tmp_path, "talk"), ROWS)
    assert "odd: loading the model" in caplog.text
    assert "odd: done in 3 s" in caplog.text
    assert "lines with numbers" in caplog.text
    for value in ("0.98765", "12.5", "-3.25", "0.125"):
        assert value not in caplog.text


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ("array([[0.5, 1.5]], dtype=float32)", True),
        (" [ 1.  2.  3.]", True),
        ("0.98765", True),
        ("12.5", True),
        ("-3", True),
        ("x = 0.25 1.5", True),
        ("[QUARK-INFO]: The quantized model was written", False),
        ("INFO: nncf 3.4.0 finished in 2.7 s", False),
        ("Applying Fast Bias correction: 100%", False),
        ("Writing HLS project to folder", False),
    ],
)
def test_which_lines_are_data(line: str, hidden: bool) -> None:
    assert is_data(line) == hidden


def test_time_is_bounded_and_no_process_stays(python: None, tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="took longer than 2 s"):
        compile_isolated(odd(seconds=2.0), job(tmp_path, "sleep"), ROWS)
    folder = str(tmp_path / "scratch" / "child")
    left = [entry for entry in Path("/proc").glob("[0-9]*/cwd") if _target(entry) == folder]
    assert left == []


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def test_memory_is_bounded(python: None, tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="needs more than 1 GiB"):
        compile_isolated(odd(memory_gib=1.0), job(tmp_path, "eat"), ROWS)


def test_a_crash_is_told_with_the_last_words(python: None, tmp_path: Path) -> None:
    with pytest.raises(SystemFault, match="ended without an answer: Segmentation fault"):
        compile_isolated(odd(), job(tmp_path, "die"), ROWS)


def test_a_refusal_is_the_users_fault(python: None, tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="odd: this chip has no softmax") as caught:
        compile_isolated(odd(), job(tmp_path, "refuse"), ROWS)
    assert caught.value.hint == "leave it out"


# -- building ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A target whose lock holds one small package."""
    monkeypatch.setenv("EDGEWRIGHT_TARGET_ENVIRONMENTS", str(tmp_path / "environments"))
    lock = environments.lock_file(Target("x", "", "", environment="openvino")).read_text()
    part = lock[lock.index("tabulate==") :]
    lines = part.splitlines()
    end = next(index for index, line in enumerate(lines) if not line.endswith("\\"))
    (tmp_path / "small.txt").write_text("\n".join(lines[: end + 1]) + "\n")
    return Target("small", "for tests", "none", requires=(), environment=str(tmp_path / "small.txt"))


def test_an_environment_is_built_once_whoever_asks(small: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[str] = []
    build = environments._build

    def count(target: Target, folder: Path, timeout: float) -> None:
        builds.append(target.name)
        build(target, folder, timeout)

    monkeypatch.setattr(environments, "_build", count)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(environments.environment_python(small))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds == ["small"]
    assert len(set(found)) == 1
    done = subprocess.run([found[0], "-c", "import tabulate; print(tabulate.__name__)"], capture_output=True, text=True)
    assert done.stdout == "tabulate\n"
    folder = environments.environment_folder(small)
    assert environments.lock_digest(small)[:12] in folder.name
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".tmp")] == []


def test_a_build_that_was_killed_leaves_nothing_in_the_way(small: Target) -> None:
    folder = environments.environment_folder(small)
    left = folder.with_name(f".tmp-{folder.name}-dead")
    left.mkdir(parents=True)
    assert environments.environment_python(small).exists()
    assert not left.exists()


def test_a_package_that_does_not_match_its_hash_is_refused(small: Target) -> None:
    lock = Path(str(small.environment))
    text = lock.read_text()
    digests = [part.partition(":")[2].split()[0] for part in text.split("--hash=")[1:]]
    for digest in digests:
        text = text.replace(digest, "0" * 64)
    lock.write_text(text)
    with pytest.raises(Unavailable, match="could not be built"):
        environments.environment_python(small)
    assert not environments.environment_folder(small).exists()


def test_a_prepared_interpreter_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TARGET_PYTHON_OPENVINO", "/no/such/python")
    with pytest.raises(ConfigError, match="EDGEWRIGHT_TARGET_PYTHON_OPENVINO names no program"):
        environments.prepared_python(Target("openvino", "", "", environment="openvino"))


def test_a_lock_that_is_missing_is_said() -> None:
    with pytest.raises(ConfigError, match="the lock of the target lost is missing"):
        environments.lock_file(Target("lost", "", "", environment="lost"))


def test_waiting_for_another_builder_ends(small: Target) -> None:
    from edgewright.errors import Busy

    folder = environments.environment_folder(small)
    folder.parent.mkdir(parents=True)
    started = time.monotonic()
    with (
        environments.locked(folder.with_name(f".{folder.name}.lock"), 1),
        pytest.raises(Busy, match="another process is building"),
    ):
        environments.environment_python(small, timeout=0.2)
    assert time.monotonic() - started < 30
