"""Runs in one environment and measures one way to make Dags: ``python child.py WAY FOLDER``, one JSON line as answer.

Nothing of the other environments is imported here, and every import is done before the clock starts.
"""

from __future__ import annotations

import datetime
import gc
import importlib.metadata
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TASKS = 10


def python(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """Calls of ``DAG()`` and of operators alone: the least that any way can cost. No file is read."""
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk import DAG

    count = len(list(folder.glob("*.py")))
    delay, start = datetime.timedelta(minutes=5), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def one(number: int) -> Any:
        with DAG(f"plain_{number}", schedule="@daily", start_date=start, catchup=False, tags=["bench"]) as dag:
            before = None
            for task in range(TASKS):
                operator = BashOperator(
                    task_id=f"t{task}", bash_command=f"echo {number} {task}", retries=1, retry_delay=delay
                )
                if before is not None:
                    before >> operator
                before = operator
        return dag

    return lambda: [one(number) for number in range(count)], "apache-airflow"


def python_files(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """The same Dags as Python files: read, compiled, executed, each apart, as Airflow does."""
    import airflow.providers.standard.operators.bash
    import airflow.sdk  # noqa: F401

    def one(path: Path) -> Any:
        names: dict[str, Any] = {}
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)  # our own text
        task: Any = names["t0"]
        return task.dag

    paths = sorted(folder.glob("*.py"))
    return lambda: [one(path) for path in paths], "apache-airflow"


def edgewright(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """Read a pipeline, check all of it, build its Dag."""
    from airflow.providers.standard.operators.bash import BashOperator  # noqa: F401

    from edgewright.factory import build_dag
    from edgewright.spec import parse_pipeline

    paths = sorted(folder.glob("*/pipeline.yaml"))

    def build() -> list[Any]:
        return [build_dag(parse_pipeline(path.read_text(encoding="utf-8"), path)) for path in paths]

    return build, "edgewright"


def edgewright_cached(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """Build Dags of pipelines that were checked before: read their JSON, as a stub of the Dag bundle does."""
    from airflow.providers.standard.operators.bash import BashOperator  # noqa: F401

    from edgewright.factory import build_dag
    from edgewright.spec import compiled, parse_pipelines

    kept = []
    for path in sorted(folder.glob("*/pipeline.yaml")):
        text = path.read_text(encoding="utf-8")
        data, sha256 = compiled.dump(parse_pipelines(text, path))
        place = path.with_suffix(".json")
        place.write_bytes(data)
        kept.append((place, sha256, text, path))

    def build() -> list[Any]:
        found = [compiled.load(place.read_bytes(), sha256, text, path) for place, sha256, text, path in kept]
        return [build_dag(pipeline) for pipelines in found for pipeline in pipelines or ()]

    return build, "edgewright"


def edgewright_read(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """Read and check pipelines without building a Dag: what ``edgewright check`` does a file."""
    from edgewright.spec import parse_pipeline

    paths = sorted(folder.glob("*/pipeline.yaml"))
    return lambda: [parse_pipeline(path.read_text(encoding="utf-8"), path) for path in paths], "edgewright"


def dag_factory(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """dag-factory's own loader of a folder."""
    from airflow.providers.standard.operators.bash import BashOperator  # noqa: F401
    from dagfactory import load_yaml_dags

    def build() -> list[Any]:
        names: dict[str, Any] = {}
        load_yaml_dags(names, dags_folder=str(folder), defaults_config_path=str(folder))
        return list(names.values())

    return build, "dag-factory"


def blueprint(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """airflow-blueprint's own loader of a folder."""
    from airflow.providers.standard.operators.bash import BashOperator  # noqa: F401
    from blueprint import build_all_airflow_dags

    return lambda: list(build_all_airflow_dags(search_path=folder, register_globals={})), "airflow-blueprint"


def airflow_yaml(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """The importer that Airflow 3.4 brings, file by file, without its search for files."""
    from airflow.dag_processing.bundles.local import LocalDagBundle
    from airflow.providers.standard.operators.bash import BashOperator  # noqa: F401
    from airflow.sdk.importers.base import FilesystemDagDefinition
    from airflow.sdk.importers.yaml_importer import YamlDagImporter

    bundle, importer = LocalDagBundle(name="bench", path=str(folder)), YamlDagImporter()
    paths = sorted(folder.glob("*.yaml"))

    def build() -> list[Any]:
        found = []
        for path in paths:
            result = importer.import_definition(FilesystemDagDefinition(path=path), bundle)
            if result.errors:
                raise SystemExit(f"{path}: {result.errors}")
            found += result.dags
        return found

    return build, "apache-airflow"


def dag_bag(folder: Path) -> tuple[Callable[[], list[Any]], str]:
    """Airflow's own ``DagBag`` over a folder of Python files."""
    import airflow.providers.standard.operators.bash  # noqa: F401
    from airflow.dag_processing.dagbag import DagBag

    def build() -> list[Any]:
        bag = DagBag(dag_folder=str(folder), bundle_name="bench", bundle_path=folder)
        if bag.import_errors:
            raise SystemExit(str(bag.import_errors))
        return list(bag.dags.values())

    return build, "apache-airflow"


WAYS = {
    "python": python,
    "python-files": python_files,
    "edgewright": edgewright,
    "edgewright-cached": edgewright_cached,
    "edgewright-read": edgewright_read,
    "dag-factory": dag_factory,
    "blueprint": blueprint,
    "airflow-yaml": airflow_yaml,
    "dag-bag": dag_bag,
}


def main() -> None:
    way, folder = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.INFO)
    build, package = WAYS[way](folder)
    gc.collect()
    wall, clock = time.perf_counter(), time.process_time()
    dags = build()
    seconds, wall = time.process_time() - clock, time.perf_counter() - wall
    tasks = {len(dag.tasks) for dag in dags}
    if tasks - {TASKS}:
        raise SystemExit(f"{way}: Dags of {sorted(tasks)} tasks instead of {TASKS}")
    answer = {"cpu": seconds, "wall": wall, "dags": len(dags), "version": importlib.metadata.version(package)}
    sys.__stdout__.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
