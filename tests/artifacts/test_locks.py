"""Leases: one holder at a time, on a local store and on S3, also when the one before was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.locks import Lease
from edgewright.errors import Busy, StoreError

HOLDER = """
import sys, time
from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.locks import Lease
with Lease(ArtifactStore(sys.argv[1]), "model", seconds=float(sys.argv[2])).hold(timeout=20):
    print("held", flush=True)
    time.sleep(60)
"""

# Every process waits for the same moment, then tries; the winner lives until all have tried.
RACER = """
import sys, time
from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.locks import Lease
lease = Lease(ArtifactStore(sys.argv[1]), "model", seconds=60)
lease._backend.read()
print("ready", flush=True)
sys.stdin.readline()
won = any(lease._try() for _ in range(20))
print("done won" if won else "done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3_store"))


def lapse(store: ArtifactStore) -> None:
    """Leave a lease that lapsed a minute ago, of another machine."""
    document = {"token": "x", "owner": "elsewhere:1", "until": time.time() - 60, "process": {"machine": "else"}}
    store.write_json("locks/model", document)


def test_a_second_holder_waits_and_then_is_told_who_holds_it(root: str) -> None:
    store = ArtifactStore(root)
    busy = pytest.raises(Busy, match=rf"model is locked by .*:{os.getpid()}")
    with Lease(store, "model").hold(), busy, Lease(store, "model").hold(timeout=0.3):
        pass
    with Lease(store, "model").hold(timeout=1):
        pass


def test_other_names_do_not_wait(root: str) -> None:
    store = ArtifactStore(root)
    with Lease(store, "registry/a").hold(), Lease(store, "registry/b").hold(timeout=1):
        pass


def test_threads_take_turns(root: str) -> None:
    store = ArtifactStore(root)
    inside, most, done = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(3):
            with Lease(store, "model").hold(timeout=60):
                inside += 1
                most = max(most, inside)
                time.sleep(0.01)
                inside -= 1
                done += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 12)


def test_only_one_of_many_processes_overtakes_a_lapsed_lease(tmp_path: Path) -> None:
    lapse(ArtifactStore(tmp_path))
    command = [sys.executable, "-c", RACER, str(tmp_path)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    said = {}
    for word in ("ready", "done"):
        for racer in racers:
            assert racer.stdin is not None
            if word == "done":
                racer.stdin.write("go\n")
                racer.stdin.flush()
        for racer in racers:
            assert racer.stdout is not None
            said[racer.pid] = racer.stdout.readline().strip()
            assert said[racer.pid].startswith(word)
    # all of them are still alive here: one that ended would rightly be overtaken
    assert sorted(said.values()) == ["done"] * 4 + ["done won"]
    for racer in racers:
        racer.communicate(timeout=60)


def test_two_who_saw_the_same_lapsed_lease_do_not_both_win(root: str) -> None:
    store = ArtifactStore(root)
    lapse(store)
    first, second = Lease(store, "model"), Lease(store, "model")
    _, seen_by_first = first._backend.read()
    _, seen_by_second = second._backend.read()
    assert first._backend.exchange(seen_by_first, first._document(60))
    assert not second._backend.exchange(seen_by_second, second._document(60))
    assert not second._try()
    first._release()
    assert second._try()


def test_who_was_overtaken_does_not_give_back_the_lease_of_the_next(root: str) -> None:
    store = ArtifactStore(root)
    slow = Lease(store, "model", seconds=0.2)
    with slow.hold():
        time.sleep(0.4)
        fast = Lease(store, "model")
        assert fast._try()
    assert not Lease(store, "model")._try(), "the end of the slow one freed the lease of the fast one"


def test_a_killed_holder_is_overtaken_at_once_on_the_same_machine(root: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, root, "600"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Busy), Lease(ArtifactStore(root), "model").hold(timeout=0.3):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = time.monotonic()
    with Lease(ArtifactStore(root), "model").hold(timeout=20):
        assert time.monotonic() - started < 5


def test_the_process_of_another_machine_is_waited_for(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    document = {"token": "x", "owner": "pod-1:7", "until": time.time() + 60, "process": {"machine": "m", "pid": 7}}
    store.write_json("locks/model", document)
    with pytest.raises(Busy, match="locked by pod-1:7"), Lease(store, "model").hold(timeout=0.2):
        pass


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("in the way")
    with pytest.raises(StoreError, match="cannot lock model"), Lease(ArtifactStore(tmp_path), "model").hold():
        pass


def test_a_lease_leaves_no_temporary_files(tmp_path: Path) -> None:
    with Lease(ArtifactStore(tmp_path), "registry/model").hold():
        held = json.loads((tmp_path / "locks/registry/model").read_text())
        assert held["process"]["pid"] == os.getpid()
    assert [p.name for p in (tmp_path / "locks").rglob("*") if p.is_file()] == [".guard"]
