"""A process that scores shards: ``python -m edgewright.steps.score_worker JOB``.

It takes one line ``FILE CUT`` after the other from its standard input, and answers with one JSON line each time it has
something to say. It ends when the input ends, so it never outlives by more than a shard whoever started it.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from edgewright.errors import ErrorRecord

_EVERY_SECONDS = 0.5


def main(path: str) -> None:
    """Answer until the input ends."""
    # what a library prints must not come between the answers
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from edgewright.steps.score_shard import Job, score_shard

    # written a moment ago by the process that started this one, in a folder that only its user can write to
    job: Job = pickle.loads(Path(path).read_bytes())  # noqa: S301
    scorer = job.scorer()
    if scorer.plain and job.into is None and all(plan.reading.format in ("csv", "jsonl") for plan in job.plans):
        sys.meta_path.insert(0, _NoPandas())
    for line in sys.stdin:
        file, cut = map(int, line.split())
        told = _Told(answers)
        try:
            marker = score_shard(job, scorer, job.plans[file], cut, told)
            told.flush()
            _say(answers, {"done": marker})
        except Exception as error:
            record = ErrorRecord.of(error)
            _say(answers, {"error": {**vars(record)}})


class _NoPandas(importlib.abc.MetaPathFinder):
    """Hides pandas from pyarrow, which looks for it at the first array: a second of CPU, and nothing here needs it."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Find nothing, for good."""
        if fullname == "pandas":
            raise ModuleNotFoundError("a process that scores by ONNX Runtime does without pandas", name=fullname)


class _Told:
    """Passes progress on, twice a second."""

    def __init__(self, answers: Any) -> None:
        self._answers = answers
        self._rows = self._bytes = 0
        self._at = time.monotonic()

    def __call__(self, rows: int, size: int) -> None:
        self._rows, self._bytes = self._rows + rows, self._bytes + size
        if time.monotonic() - self._at > _EVERY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Pass on what is left."""
        _say(self._answers, {"rows": self._rows, "bytes": self._bytes})
        self._rows = self._bytes = 0
        self._at = time.monotonic()


def _say(answers: Any, document: dict[str, Any]) -> None:
    answers.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
