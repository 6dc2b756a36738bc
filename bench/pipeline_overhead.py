"""What Edgewright costs: the seven steps of ``bracelet`` run in four ways, all in one go, reported as ratios.

(a) a plain Python script without Edgewright, (b) ``edgewright run``, cold and fully cached, (c) a hand-written Airflow
Dag of ``@task``s over the same functions as (a), (d) our Dag through the same Airflow.

    python bench/pipeline_overhead.py [--runs 5] [--no-airflow] [--json]

Aims: (b) at most 1.3 x (a) plus 100 ms a step; (d) at most 1.15 x (c); a fully cached (b) under 20 % of (b).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = 7
EDGEWRIGHT = str(Path(sys.executable).parent / "edgewright")


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds that a whole process takes; its output is shown when it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return seconds


def in_process(runs: int, work: Path) -> dict[str, list[float]]:
    """Time (a), (b) and the cached (b), in turn, so that a slow minute hits all of them."""
    figures: dict[str, list[float]] = {"a": [], "b": [], "b_cached": []}
    base = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    run = [EDGEWRIGHT, "run", "dags/bracelet/pipeline.yaml", "--skip", "live"]
    home = {**base, "EDGEWRIGHT_HOME": str(work / "home")}
    for number in range(runs + 1):  # the first round makes the databases and is not counted
        plain = [sys.executable, "bench/plain/steps.py", str(work / f"plain-{number}"), f"sqlite:///{work}/plain.db"]
        round_ = {
            "a": timed(plain, base),
            "b": timed([*run, "--no-cache"], home),
            "warm": timed(run, home),  # fills the cache
            "b_cached": timed(run, home),
        }
        if number:
            for name in figures:
                figures[name].append(round_[name])
    return figures


def through_airflow(runs: int, work: Path) -> dict[str, list[float]]:
    """Time (c) and (d) as Airflow itself sees them: from the run's start to its end."""
    from edgewright.cli.airflow_api import AirflowApi

    dags = work / "dags"
    shutil.copytree(ROOT / "dags" / "bracelet", dags / "bracelet")
    shutil.copyfile(ROOT / "bench" / "plain" / "dag.py", dags / "plain_dag.py")
    environment = {
        **os.environ,
        "EDGEWRIGHT_HOME": str(work / "stack"),
        "BENCH_FOLDER": str(ROOT / "bench" / "plain"),
        "BENCH_WORK": str(work),
        "BENCH_PIPELINE": str(ROOT / "dags" / "bracelet"),
    }
    subprocess.run([EDGEWRIGHT, "up", "--dags", str(dags)], env=environment, check=True)
    try:
        os.environ["EDGEWRIGHT_HOME"] = environment["EDGEWRIGHT_HOME"]
        api = AirflowApi.local()
        figures: dict[str, list[float]] = {"c": [], "d": []}
        for number in range(runs + 1):
            for name, dag, conf in (("c", "plain", {}), ("d", "bracelet", {"edgewright": {"cache": "off"}})):
                seconds = api.run_seconds(dag, conf)
                if number:
                    figures[name].append(seconds)
        return figures
    finally:
        subprocess.run([EDGEWRIGHT, "down"], env=environment, check=True)


def report(figures: dict[str, list[float]]) -> dict[str, object]:
    """Return medians, the ratios and whether the aims are met."""
    median = {name: statistics.median(values) for name, values in figures.items()}
    found: dict[str, object] = {
        "median_seconds": {name: round(value, 3) for name, value in median.items()},
        "min_max_seconds": {name: [round(min(v), 3), round(max(v), 3)] for name, v in figures.items()},
        "b/a": round(median["b"] / median["a"], 3),
        "b_aim_met": median["b"] <= 1.3 * median["a"] + 0.1 * STEPS,
        "b_cached/b": round(median["b_cached"] / median["b"], 3),
    }
    if "c" in median:
        found["d/c"] = round(median["d"] / median["c"], 3)
    return found


def main() -> None:
    """Run the benchmark and print its report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each way")
    parser.add_argument("--no-airflow", action="store_true", help="only (a) and (b)")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="edgewright-bench-"))
    try:
        figures = in_process(options.runs, work)
        if not options.no_airflow:
            figures |= through_airflow(options.runs, work)
        print(json.dumps(report(figures), indent=1))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
