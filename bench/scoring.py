"""Batch scoring of the bracelet's model, beside pandas with scikit-learn and beside the CSV parser alone.

    python bench/scoring.py                               # 200 MB for the ratios
    python bench/scoring.py --memory 100,1000,4000        # and peak memory over growing files
    python bench/scoring.py --processes 1,2               # and how it grows with processes
    python bench/scoring.py --generated 20 --limit 1024   # 20 GB that need no disk, each process limited to 1,024 MiB
    python bench/scoring.py --quoted                      # texts in quotes, as Arrow writes them and pandas does not

Each measurement runs in a process of its own, one after the other, on one generated file (an id and 13 numbers).
CPU seconds are those of the process and its children after the libraries are imported; for several processes their
start is counted too. What is compared:

- *parse*: ``pyarrow.csv`` alone reads the columns in the same blocks with one thread, and drops them.
- *pandas*: ``read_csv`` in chunks of 100,000 rows, ``predict_proba``, ``to_parquet``: what one would write by hand.
- *score*: the step, from planning to the manifest; the engine is chosen within.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BLOCK_ROWS = 100_000
MODELS = ("network", "boosting")


def generate(path: Path, megabytes: float, *, quoted: bool = False) -> None:
    """Write patients whose values are spread as the real ones are."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.csv as pacsv

    real = pd.read_csv(ROOT / "dags" / "bracelet" / "cleveland.csv").drop(columns="num")
    random = np.random.default_rng(1)
    rows = 0
    with path.open("wb") as file:
        while file.tell() < megabytes * 1_000_000:
            columns: dict[str, Any] = {"patient": [f"p{rows + i}" for i in range(BLOCK_ROWS)]}
            for name in real:
                values = real[name].dropna().to_numpy(dtype=float)
                columns[name] = (random.choice(values, BLOCK_ROWS) + random.normal(0, 0.01, BLOCK_ROWS)).round(3)
            options = pacsv.WriteOptions(include_header=False, quoting_style="all_valid" if quoted else "needed")
            if not rows:
                file.write((",".join(columns) + "\n").encode())
            pacsv.write_csv(pa.table(columns), file, options)
            rows += BLOCK_ROWS


def train(folder: Path, kind: str) -> dict[str, Any]:
    """Train one of the models by the steps of a pipeline; return its reference."""
    import shutil

    from edgewright.steps.contract import Identity, Source, StepRequest
    from edgewright.steps.execute import execute

    code = folder / "pipeline"
    if not code.exists():
        shutil.copytree(ROOT / "dags" / "bracelet", code)
        (code / "boosting.py").write_text(
            "from sklearn.ensemble import GradientBoostingClassifier\n"
            "from sklearn.impute import SimpleImputer\n"
            "from sklearn.pipeline import make_pipeline\n"
            "def fit(data):\n"
            "    return make_pipeline(SimpleImputer(), GradientBoostingClassifier(random_state=0))"
            ".fit(data.X, data.y)\n"
        )

    def run(step: str, config: dict[str, Any]) -> Any:
        identity = Identity(dag_id="bench", run_id=kind, task_id=step)
        request = StepRequest(
            step=step, config=config, identity=identity, source=Source(folder=str(code)), store=str(folder / "store")
        )
        return execute(request)

    data = run("ingest", {"source": "cleveland.csv", "label": "num"}).outputs["dataset"].model_dump(mode="json")
    entry = "model.py:fit" if kind == "network" else "boosting.py:fit"
    found: dict[str, Any] = run("train", {"data": data, "entry": entry}).outputs["model"].model_dump(mode="json")
    return found


# -- the ways, each in a process of its own ---------------------------------------------------------------------------


def parse(job: dict[str, Any]) -> int:
    """Read every number and drop it."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    types = dict.fromkeys(job["features"], pa.float32())
    reader = pacsv.open_csv(
        job["file"],
        pacsv.ReadOptions(use_threads=False, block_size=4 << 20),
        pacsv.ParseOptions(),
        pacsv.ConvertOptions(column_types={**types, "patient": pa.string()}, include_columns=[*types, "patient"]),
    )
    return sum(batch.num_rows for batch in reader)


def pandas(job: dict[str, Any]) -> int:
    """What one would write by hand."""
    import pandas as pd

    from edgewright.artifacts import ArtifactRef, ArtifactStore
    from edgewright.steps.models import load_model

    model: Any = load_model(ArtifactStore(job["store"]).fetch(ArtifactRef(**job["model"])))
    rows = 0
    for number, chunk in enumerate(pd.read_csv(job["file"], chunksize=100_000)):
        scores = model.estimator.predict_proba(chunk[job["features"]])
        out = chunk[["patient"]].assign(prediction=scores.argmax(axis=1))
        for place in range(scores.shape[1]):
            out[f"probability_{place}"] = scores[:, place]
        out.to_parquet(f"{job['to']}/{number}.parquet")
        rows += len(chunk)
    return rows


def score(job: dict[str, Any]) -> int:
    """The step."""
    from edgewright.steps.contract import Identity, StepRequest
    from edgewright.steps.execute import execute

    source = job["file"] if "://" in job["file"] else f"file://{job['file']}"
    config = {
        "model": job["model"], "source": source, "to": f"file://{job['to']}", "keep": ["patient"],
        "processes": job["processes"], "shard_mib": 32,
    }  # fmt: skip
    identity = Identity(dag_id="bench", run_id="score", task_id="score")
    result = execute(StepRequest(step="score", config=config, identity=identity, store=job["store"]))
    shards = round(result.metrics["cpu_seconds"], 1)
    print(json.dumps({"engine": f"{result.tags['engine']}, {shards} CPU-s in shards"}), file=sys.stderr)
    return int(result.metrics["rows"])


def child(name: str, job: dict[str, Any]) -> None:
    """Run one way and print what it cost."""
    if job.get("limit"):
        resource.setrlimit(resource.RLIMIT_DATA, (job["limit"] << 20,) * 2)  # its processes have the same limit
    import onnxruntime  # noqa: F401
    import pandas as pd  # noqa: F401
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401
    import skl2onnx  # noqa: F401
    import sklearn.ensemble
    import sklearn.neural_network
    import sklearn.pipeline  # noqa: F401

    import edgewright.steps.execute
    import edgewright.steps.score  # noqa: F401

    def cpu() -> float:
        kids = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + kids.ru_utime + kids.ru_stime

    before, clock = cpu(), time.perf_counter()
    rows = {"parse": parse, "pandas": pandas, "score": score}[name](job)
    used, wall = cpu() - before, time.perf_counter() - clock
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"rows": rows, "cpu": used, "wall": wall, "peak_mib": peak // 1024}))


def measure(name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run one way in a process of its own."""
    with tempfile.TemporaryDirectory(dir=job["scratch"]) as to:
        call = [sys.executable, __file__, "--child", name, json.dumps({**job, "to": to})]
        # pandas and scikit-learn get one thread too: seconds of CPU are compared
        done = subprocess.run(
            call, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    notes = [line for line in done.stderr.splitlines() if line.startswith('{"engine"')]
    return {**found, **(json.loads(notes[0]) if notes else {})}


@contextlib.contextmanager
def generated(gigabytes: float) -> Iterator[tuple[str, int]]:
    """Serve an object that is made when it is read; yield its address and size."""
    command = [sys.executable, str(Path(__file__).parent / "generated.py"), str(gigabytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port, size = server.stdout.readline().split()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        yield "s3://bench/patients.csv", int(size)
        server.stdin.close()


def stream(job: dict[str, Any], gigabytes: float, limit: int, processes: list[int]) -> None:
    """Score more than fits on a disk, with the memory of each process limited."""
    with generated(gigabytes) as (address, size):
        for count in processes:
            found = measure("score", {**job, "file": address, "processes": count, "limit": limit})
            print(line(f"network: {size / 1e9:.1f} GB from S3, {count} process(es)", found), flush=True)
            hours = found["cpu"] / size * 1e12 / 3600
            print(f"    no process had more than {limit} MiB; 1 TB of this: {hours:.1f} CPU-hours")


def line(what: str, found: dict[str, Any], base: float | None = None) -> str:
    """Return a row of the table."""
    rate = found["rows"] / found["cpu"]
    ratio = f"{rate / base:6.2f}" if base else "      "
    return (
        f"{what:<44} {found['rows']:>10,} rows {found['cpu']:>8.1f} CPU-s {found['wall']:>8.1f} s "
        f"{rate:>10,.0f} rows/CPU-s {ratio} {found['peak_mib']:>6} MiB  {found.get('engine', '')}"
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--memory", default="", help="sizes in MB, such as 100,1000,4000")
    parser.add_argument("--processes", default="1", help="such as 1,2")
    parser.add_argument("--generated", type=float, default=0, help="GB that are made when they are read")
    parser.add_argument(
        "--limit", type=int, default=1024, help="MiB of memory that each process of --generated may have"
    )
    parser.add_argument("--quoted", action="store_true", help="texts in quotes")
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], json.loads(options.child[1]))
        return
    with tempfile.TemporaryDirectory(prefix="edgewright-scoring-") as scratch:
        folder = Path(scratch)
        file = folder / "patients.csv"
        generate(file, options.megabytes, quoted=options.quoted)
        import pandas as pd

        features = [name for name in pd.read_csv(ROOT / "dags/bracelet/cleveland.csv", nrows=1) if name != "num"]
        job = {"file": str(file), "features": features, "store": str(folder / "store"), "scratch": scratch}
        if options.generated:
            job["model"] = train(folder, "network")
            stream(job, options.generated, options.limit, [int(one) for one in options.processes.split(",")])
            return
        base = measure("parse", job)
        print(f"{file.stat().st_size / 1e6:,.0f} MB of CSV; the ratio is to pandas with the same model")
        print(line("CSV parser alone, one thread", base))
        for kind in MODELS:
            job["model"] = train(folder, kind)
            peer = measure("pandas", job)
            print(line(f"{kind}: pandas, scikit-learn", peer))
            for count in map(int, options.processes.split(",")):
                found = measure("score", {**job, "processes": count})
                print(line(f"{kind}: score, {count} process(es)", found, peer["rows"] / peer["cpu"]), flush=True)
                print(f"    CPU of parser and score: 1 to {found['cpu'] / base['cpu']:.2f}")
        for size in filter(None, options.memory.split(",")):
            file.unlink()
            generate(file, float(size), quoted=options.quoted)
            job["model"] = train(folder, "network")
            print(line(f"network: score, {size} MB, 1 process", measure("score", {**job, "processes": 1})), flush=True)


if __name__ == "__main__":
    main()
