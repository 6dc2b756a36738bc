"""What a Dag costs to parse: CPU time per Dag of ten tasks, ours beside plain Python and beside our peers, in one run.

    python bench/parse.py [--pipelines 200,1000] [--rounds 3] [--only WAY ...] [--json FILE]

Each way runs in a process of its own, in an environment of its own; the ways take turns, so that a slow minute hits all
of them, and medians are reported. The clock is ``time.process_time`` around the building alone: importing airflow.sdk,
the operator and the tool (3 s or so, the same for everybody) is excluded. The peers' environments are made on the first
run, by ``uv`` from ``bench/requirements-*.in``, below ``$EDGEWRIGHT_BENCH_CACHE`` (default ~/.cache/edgewright-bench).

Aims: ours at most 1.5 x plain Python; ``edgewright check`` in under a tenth of the time of Airflow's import.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parsing import documents

HERE = Path(__file__).parent
CHILD = HERE / "parsing" / "child.py"
#: What ``--only`` calls the comparison of ``edgewright check`` with Airflow's DagBag.
CHECK = "check"


@dataclass(frozen=True)
class Way:
    """One way to make Dags.

    Attributes:
        text: What it is, for the table.
        child: Which function of the child measures it.
        language: Which documents it reads.
        environment: Whose environment it runs in; empty for the one that runs this script.
        baseline: Which way is plain Python on the same Airflow.
    """

    text: str
    child: str
    language: str
    environment: str = ""
    baseline: str = "python"


WAYS: dict[str, Way] = {
    "python": Way("plain Python, calls of DAG() and operators only", "python", "plain"),
    "python-files": Way("plain Python, files read and compiled", "python-files", "plain"),
    "edgewright": Way("Edgewright, cold, Bash tasks", "edgewright", "ours"),
    "edgewright-cached": Way("Edgewright, checked before, Bash tasks", "edgewright-cached", "ours"),
    "edgewright-steps": Way("Edgewright, cold, ten of its own steps", "edgewright", "our-steps"),
    "edgewright-steps-cached": Way("Edgewright, checked before, ten steps", "edgewright-cached", "our-steps"),
    "dag-factory": Way("dag-factory", "dag-factory", "dag-factory", "dag-factory"),
    "blueprint": Way("airflow-blueprint", "blueprint", "blueprint", "blueprint"),
    "python-3.4": Way("plain Python on Airflow 3.4", "python", "plain", "airflow-3.4", "python-3.4"),
    "airflow-yaml": Way("Airflow 3.4's own YAML importer", "airflow-yaml", "airflow-yaml", "airflow-3.4", "python-3.4"),
}


def interpreter(name: str) -> str:
    """Return the Python of an environment, after making it where it is not there or its requirements changed."""
    if not name:
        return sys.executable
    root = Path(os.environ.get("EDGEWRIGHT_BENCH_CACHE") or "~/.cache/edgewright-bench").expanduser()
    wanted = HERE / f"requirements-{name}.in"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]
    folder = root / f"{name}-{sys.version_info.major}.{sys.version_info.minor}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        if shutil.which("uv") is None:
            raise SystemExit("uv is needed to make the peers' environments (or leave them out with --only)")
        print(f"making {folder}", file=sys.stderr)
        subprocess.run(["uv", "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), "-r", str(wanted)], check=True)
        (folder / "complete").touch()
    return str(python)


def environment(work: Path) -> dict[str, str]:
    """Return the children's environment: their own Airflow home, nothing sent anywhere."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "EDGEWRIGHT", "PYTHON"))
    }
    return {
        **kept,
        "AIRFLOW_HOME": str(work / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "false",
        "EDGEWRIGHT_HOME": str(work / "home"),
        "DO_NOT_TRACK": "true",
        "SCARF_NO_ANALYTICS": "true",
    }


def child(python: str, way: str, folder: Path, work: Path) -> dict[str, Any]:
    """Measure one way once."""
    done = subprocess.run(
        [python, str(CHILD), way, str(folder)], env=environment(work), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(names: list[str], count: int, rounds: int, work: Path) -> dict[str, dict[str, Any]]:
    """Return the medians of some ways for one number of pipelines."""
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            way = WAYS[name]
            found = child(interpreter(way.environment), way.child, folder_of(way.language, count, work), work)
            if found["dags"] != count:
                raise SystemExit(f"{name}: {found['dags']} Dags instead of {count}")
            figures[name].append(found)
    return {
        name: {
            "ms_per_dag": round(statistics.median(run["cpu"] for run in runs) / count * 1000, 4),
            "runs_ms": [round(run["cpu"] / count * 1000, 4) for run in runs],
            "version": runs[0]["version"],
        }
        for name, runs in figures.items()
    }


def folder_of(language: str, count: int, work: Path) -> Path:
    """Return a folder of documents, after writing them where they are not there."""
    folder = work / f"{language}-{count}"
    if not folder.exists():
        documents.write(language, count, folder)
    return folder


def add_ratios(rows: dict[str, dict[str, Any]]) -> None:
    """Note each way's ratio to plain Python on the same Airflow."""
    for name, row in rows.items():
        base = rows.get(WAYS[name].baseline)
        row["ratio"] = round(row["ms_per_dag"] / base["ms_per_dag"], 3) if base else None


# -- edgewright check ----------------------------------------------------------------------------------------------


def write_stubs(count: int, work: Path) -> Path:
    """Return a folder of stubs, as our Dag bundle gives them to Airflow 3.3."""
    from edgewright.factory.stub import render_stub, stub_name

    folder = work / f"stubs-{count}"
    if not folder.exists():
        for path in sorted(folder_of("ours", count, work).glob("*/pipeline.yaml")):
            text, place = path.read_text(encoding="utf-8"), folder / path.parent.name
            place.mkdir(parents=True)
            (place / path.name).write_text(text, encoding="utf-8")
            name = f"{path.parent.name}/{path.name}"
            digest = hashlib.sha256(text.encode()).hexdigest()
            (place / stub_name(path.name)).write_text(render_stub(name, text, digest), encoding="utf-8")
    return folder


def whole_process(command: list[str], work: Path) -> tuple[float, float]:
    """Return CPU and wall seconds of a whole process, from its start to its end."""
    before, wall = os.times(), time.perf_counter()
    done = subprocess.run(command, env=environment(work), capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - wall, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, wall


def measure_check(count: int, rounds: int, work: Path) -> dict[str, Any]:
    """Return what ``edgewright check`` takes for some files, and Airflow 3.3's DagBag for the same Dags."""
    pipelines, plain, stubs = folder_of("ours", count, work), folder_of("plain", count, work), write_stubs(count, work)
    tool = [str(Path(sys.executable).parent / "edgewright"), "check", str(pipelines)]
    figures: dict[str, list[float]] = {"check": [], "read": [], "plain": [], "stubs": [], "plain_process": []}
    for _ in range(rounds):
        figures["check"].append(whole_process(tool, work)[0])
        figures["read"].append(child(sys.executable, "edgewright-read", pipelines, work)["cpu"])
        figures["plain"].append(child(sys.executable, "dag-bag", plain, work)["cpu"])
        figures["stubs"].append(child(sys.executable, "dag-bag", stubs, work)["cpu"])
        figures["plain_process"].append(whole_process([sys.executable, str(CHILD), "dag-bag", str(plain)], work)[0])
    medians = {name: round(statistics.median(values), 3) for name, values in figures.items()}
    return {
        "files": count,
        "seconds": medians,
        "ratio_to_plain": round(medians["check"] / medians["plain"], 3),
        "ratio_to_stubs": round(medians["check"] / medians["stubs"], 3),
        "ratio_of_processes": round(medians["check"] / medians["plain_process"], 3),
    }


# -- the report ----------------------------------------------------------------------------------------------------


_CHECK_ROWS = (
    ("edgewright check, whole process", "check", ""),
    ("  of it reading and checking the documents", "read", ""),
    ("DagBag, plain Python, imports excluded", "plain", "ratio_to_plain"),
    ("DagBag, plain Python, whole process", "plain_process", "ratio_of_processes"),
    ("DagBag, our stubs, imports excluded", "stubs", "ratio_to_stubs"),
)


def report(document: dict[str, Any]) -> str:
    """Return the figures as a table for people."""
    lines = []
    for count, rows in document["parse"].items():
        lines += [
            "",
            f"{count} pipelines of {documents.TASKS} tasks",
            f"{'way':<52}{'ms CPU/Dag':>12}{'ratio':>8}  version",
        ]
        for name, row in rows.items():
            ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
            lines.append(f"{WAYS[name].text:<52}{row['ms_per_dag']:>12.3f}{ratio:>8}  {row['version']}")
    if document["parse"]:
        lines += [
            "",
            "ratio: to plain Python on the same Airflow (3.4 for Airflow's own importer, else 3.3)",
            "checked before: what a Dag processor and a worker do with a version of the Dag bundle",
        ]
    if found := document["check"]:
        lines += ["", f"edgewright check of {found['files']} files, CPU seconds"]
        for text, key, ratio in _CHECK_ROWS:
            beside = f"  check is {found[ratio]:.2f} x" if ratio else ""
            lines.append(f"  {text:<46}{found['seconds'][key]:>7.2f}{beside}")
    return "\n".join(lines).strip()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", default="200,1000", help="numbers of pipelines (default: 200,1000)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (default: 3)")
    parser.add_argument("--only", nargs="+", choices=[*WAYS, CHECK], help="leave out the others")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON (to standard output without FILE)"
    )
    return parser.parse_args()


def main() -> None:
    given = arguments()
    counts = [int(part) for part in given.pipelines.split(",")]
    wanted = set(given.only or [*WAYS, CHECK])
    # a ratio needs its baseline
    wanted |= {WAYS[name].baseline for name in wanted & set(WAYS)}
    names = [name for name in WAYS if name in wanted]
    for name in dict.fromkeys(WAYS[name].environment for name in names):
        interpreter(name)
    document: dict[str, Any] = {"parse": {}, "check": None, "rounds": given.rounds}
    with tempfile.TemporaryDirectory(prefix="edgewright-parse-") as folder:
        work = Path(folder)
        for count in counts if names else []:
            rows = measure(names, count, given.rounds, work)
            add_ratios(rows)
            document["parse"][str(count)] = rows
        if CHECK in wanted:
            document["check"] = measure_check(max(counts), given.rounds, work)
    if given.json == "-":
        print(json.dumps(document, indent=2))
        return
    print(report(document))
    if given.json:
        Path(given.json).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
