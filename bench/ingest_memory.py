"""Memory and speed of ``ingest`` on a large CSV, beside ``pandas.read_csv`` on a smaller one.

    python bench/ingest_memory.py                 # 2 GB, and 200 MB for the comparison
    python bench/ingest_memory.py --megabytes 500
    python bench/ingest_memory.py --generated 20 --limit 768   # 20 GB by HTTP, made as they are read, in 768 MiB

Each measurement runs in a process of its own; peak memory is that process's largest resident set. The file is made of
random rows (13 numbers and a label), so nothing can be learnt from repetition. ``ingest`` also splits, hashes, writes
Parquet, and digests the source and the result; ``pandas.read_csv`` only reads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import scoring

BLOCK_ROWS = 100_000


def generate(path: Path, megabytes: int) -> int:
    """Write a CSV of at least this size; return its rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pacsv

    random = np.random.default_rng(1)
    rows = 0
    with path.open("wb") as file:
        while file.tell() < megabytes * 1_000_000:
            numbers = random.normal(100, 30, (BLOCK_ROWS, 13)).round(3)
            columns = {f"f{index}": numbers[:, index] for index in range(13)}
            columns["y"] = (numbers[:, 0] + numbers[:, 1] > 200).astype(np.int64)
            pacsv.write_csv(pa.table(columns), file, pacsv.WriteOptions(include_header=rows == 0))
            rows += BLOCK_ROWS
    return rows


def run_ingest(folder: Path, name: str, scratch: Path) -> dict[str, object]:
    """Ingest a file as a task would."""
    from edgewright.steps.contract import Identity, Source, StepRequest
    from edgewright.steps.execute import execute

    label = "num" if "://" in name else "y"
    config = {"source": name, "label": label, "split": {"test": 0.25, "seed": 7, "stratify": True}}
    identity = Identity(dag_id="bench", run_id="r", task_id="data")
    request = StepRequest(
        step="ingest", config=config, identity=identity, source=Source(folder=str(folder)), store=str(scratch / "store")
    )
    ref = execute(request).outputs["dataset"]
    return {"rows": ref.meta["rows"], "parts": ref.meta["parts"], "artifact_bytes": ref.size}


def run_pandas(folder: Path, name: str) -> dict[str, object]:
    """Read a file whole, as a notebook would."""
    import pandas as pd

    return {"rows": len(pd.read_csv(folder / name))}


def measure(what: str, folder: Path, name: str, limit: int = 0) -> dict[str, object]:
    """Run one measurement in a process of its own, with at most so many MiB of memory."""
    scratch = folder / f"scratch-{what}"
    scratch.mkdir()
    command = [sys.executable, __file__, "--measure", what, str(folder), name, str(scratch), str(limit)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=None)
    shutil.rmtree(scratch)
    return json.loads(answer.stdout.splitlines()[-1])


def child(what: str, folder: Path, name: str, scratch: Path, limit: int) -> None:
    """Measure in this process and print the result."""
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit << 20, limit << 20))
    tempfile.tempdir = str(scratch)
    clock, cpu = time.perf_counter(), time.process_time()
    found = run_ingest(folder, name, scratch) if what == "ingest" else run_pandas(folder, name)
    found["wall_s"] = round(time.perf_counter() - clock, 2)
    found["cpu_s"] = round(time.process_time() - cpu, 2)
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
    print(json.dumps(found))


def show(what: str, size: float, found: dict[str, object]) -> None:
    """Print one line of the table."""
    rows, cpu, wall = int(str(found["rows"])), float(str(found["cpu_s"])), float(str(found["wall_s"]))
    print(
        f"{what:<10} {size:>7,.0f} MB {rows:>11,} rows  peak {found['peak_mb']:>6} MB  "
        f"{rows / wall / 1000:>6,.0f} krows/s  {rows / cpu / 1000:>6,.0f} krows/cpu-s  {size / wall:>5,.0f} MB/s",
        flush=True,
    )


def stream(folder: Path, gigabytes: float, limit: int) -> None:
    """Ingest by HTTP what is made as it is read, packed, so that the disk need not hold it twice."""
    with scoring.generated(gigabytes) as (_, size):
        address = f"{os.environ['AWS_ENDPOINT_URL']}/bench/patients.csv.gz"
        show("ingest", size / 1e6, measure("ingest", folder, address, limit))
    print(f"the process could not have more than {limit} MiB")


def main() -> None:
    """Generate, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=2_000)
    parser.add_argument("--compare-megabytes", type=int, default=200)
    parser.add_argument("--generated", type=float, default=0, help="GB that are made when they are read")
    parser.add_argument("--limit", type=int, default=768, help="MiB of memory that --generated may take")
    parser.add_argument("--folder", type=Path, default=None, help="where to write (three times the size is needed)")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, folder, name, scratch, limit = options.measure
        child(what, Path(folder), name, Path(scratch), int(limit))
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="edgewright-bench-") as place:
        folder = Path(place)
        if options.generated:
            stream(folder, options.generated, options.limit)
            return
        generate(folder / "small.csv", options.compare_megabytes)
        small = (folder / "small.csv").stat().st_size / 1e6
        peer = measure("pandas", folder, "small.csv")
        show("read_csv", small, peer)
        ours = measure("ingest", folder, "small.csv")
        show("ingest", small, ours)
        generate(folder / "large.csv", options.megabytes)
        large = (folder / "large.csv").stat().st_size / 1e6
        found = measure("ingest", folder, "large.csv")
        show("ingest", large, found)
    grown = float(str(found["peak_mb"])) / float(str(ours["peak_mb"]))
    print(f"memory: {large / small:.1f} times the file takes {grown:.2f} times the memory")
    rate = (int(str(ours["rows"])) / float(str(ours["cpu_s"]))) / (int(str(peer["rows"])) / float(str(peer["cpu_s"])))
    print(f"processor time: ingest does {rate:.2f} times the rows a second of pandas.read_csv, which only reads")
    print(f"memory for a file of this size: pandas {float(str(peer['peak_mb'])) / small:.1f} times the file's size")


if __name__ == "__main__":
    main()
