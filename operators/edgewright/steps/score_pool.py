"""Several processes that score shards, one a core. One that dies is replaced, and its shard is scored by another."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewright.errors import DataError, SystemFault, UserFault
from edgewright.steps.score_shard import Job, Tell, score_shard

#: So often may the process that scores a shard die before the job ends.
_TRIES = 5


@dataclass(frozen=True)
class Shard:
    """One piece of work: which cut of which file."""

    file: int
    cut: int


class WorkerDied(SystemFault):
    """Processes that score died again and again on the same shard; often the machine has too little memory."""


def score_all(job: Job, shards: Sequence[Shard], processes: int, tell: Tell) -> None:
    """Score shards; a marker is written for each.

    Args:
        job: What they belong to.
        shards: Which.
        processes: How many at once; 1: in this process.
        tell: Told rows and bytes as they are done; never by two threads at once.

    Raises:
        UserFault: a file cannot be read.
        WorkerDied: processes die again and again.
    """
    count = min(processes, len(shards))
    if count <= 1:
        scorer = job.scorer() if shards else None
        for shard in shards:
            assert scorer is not None
            score_shard(job, scorer, job.plans[shard.file], shard.cut, tell)
        return
    path = job.scratch / "job.pickle"
    path.write_bytes(pickle.dumps(job))
    pool = _Pool(str(path), list(shards), tell)
    pool.run(count)


@dataclass
class _Pool:
    path: str
    shards: list[Shard]
    tell: Tell
    lock: threading.Lock = field(default_factory=threading.Lock)
    tries: dict[Shard, int] = field(default_factory=dict)
    faults: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waiting: queue.SimpleQueue[Shard] = queue.SimpleQueue()
        for shard in self.shards:
            self.waiting.put(shard)
        self.left = len(self.shards)
        self.ended = threading.Event()
        self.children: set[subprocess.Popen[str]] = set()

    def run(self, count: int) -> None:
        threads = [threading.Thread(target=self._drive, name=f"score-{i}", daemon=True) for i in range(count)]
        for thread in threads:
            thread.start()
        try:
            self.ended.wait()
        finally:
            self.ended.set()
            for child in list(self.children):
                child.kill()
            for thread in threads:
                thread.join()
        if self.faults:
            raise self.faults[0]

    def _drive(self) -> None:
        """Keep one process at work; start another when it dies."""
        child: subprocess.Popen[str] | None = None
        try:
            while not self.ended.is_set():
                try:
                    shard = self.waiting.get(timeout=0.2)
                except queue.Empty:
                    continue  # a shard may come back from a process that died
                if child is None:
                    child = self._start()
                if not self._score(child, shard):
                    self._stop(child)
                    child = None
        except Exception as error:  # a thread's own fault must end the job, not hang it
            self._fail(error)
        finally:
            if child is not None:
                self._stop(child)

    def _start(self) -> subprocess.Popen[str]:
        # one thread in each: there are as many processes as cores
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}
        child = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-m", "edgewright.steps.score_worker", self.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        with self.lock:
            self.children.add(child)
        return child

    def _stop(self, child: subprocess.Popen[str]) -> None:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        with self.lock:
            self.children.discard(child)

    def _score(self, child: subprocess.Popen[str], shard: Shard) -> bool:
        """Have one shard scored; return whether the process can go on."""
        assert child.stdin is not None
        assert child.stdout is not None
        rows = size = 0
        try:
            child.stdin.write(f"{shard.file} {shard.cut}\n")
            child.stdin.flush()
            for line in child.stdout:
                answer = json.loads(line)
                if "done" in answer:
                    self._finish()
                    return True
                if "error" in answer:
                    self._fail(_error(answer["error"]))
                    return True
                rows, size = rows + answer["rows"], size + answer["bytes"]
                with self.lock:
                    self.tell(answer["rows"], answer["bytes"])
        except (BrokenPipeError, ValueError):
            pass
        self._again(child, shard, rows, size)
        return False

    def _finish(self) -> None:
        with self.lock:
            self.left -= 1
            if not self.left:
                self.ended.set()

    def _again(self, child: subprocess.Popen[str], shard: Shard, rows: int, size: int) -> None:
        if self.ended.is_set():
            return
        with self.lock:
            self.tell(-rows, -size)
            tries = self.tries[shard] = self.tries.get(shard, 0) + 1
        if tries >= _TRIES:
            code = child.wait()
            self._fail(WorkerDied(
                f"a process that scores died {tries} times on the same shard (exit code {code})",
                hint="too little memory? Then say fewer processes: ; the log shows what else it said",
            ))  # fmt: skip
        else:
            self.waiting.put(shard)

    def _fail(self, error: Exception) -> None:
        with self.lock:
            self.faults.append(error)
        self.ended.set()


def _error(record: dict[str, Any]) -> Exception:
    """Return an error of another process: the user's fault stays one."""
    if record["user_fault"]:
        return DataError(record["message"]) if record["type"] == "DataError" else UserFault(record["message"])
    return SystemFault(f"{record['type']}: {record['message']}")
