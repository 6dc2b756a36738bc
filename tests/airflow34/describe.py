"""Describe Dags as JSON, the same way on Airflow 3.3 and 3.4. Run as a child process; the last line is the answer.

usage: describe.py bag BUNDLE_FOLDER PATH...    what Airflow's own Dag bag finds, with the configured importers
       describe.py faults BUNDLE_FOLDER         what its configured importers find wrong, field by field
       describe.py stubs FOLDER FILE...         what the stubs of our bundle give on Airflow 3.3
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

#: Libraries that reading a pipeline must not import.
HEAVY = {
    "mlflow",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pandera",
    "pyarrow",
    "scipy",
    "skl2onnx",
    "sklearn",
    "torch",
}
#: What is the machine's or the file's, not the Dag's.
ELSEWHERE = ("_processor_dags_folder", "bundle_name", "fileloc", "relative_fileloc")


def describe(dag: Any) -> dict[str, Any]:
    """Return a Dag as Airflow serializes it, whole: what the scheduler and the web pages see."""
    from airflow.serialization.serialized_objects import DagSerialization

    data = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    dag_data = {key: value for key, value in data["dag"].items() if key not in ELSEWHERE}
    tasks = [entry["__var"] for entry in dag_data.pop("tasks")]
    upstream = {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks}
    described = {task["task_id"]: {**task, "upstream": upstream[task["task_id"]]} for task in tasks}
    return {**data, "dag": dag_data, "tasks": described}


def bag(root: Path, paths: list[Path]) -> dict[str, Any]:
    """Return what Airflow's Dag bag makes of some files of a bundle, as a worker or the Dag processor reads them."""
    from airflow.dag_processing.dagbag import DagBag

    answer: dict[str, Any] = {"dags": {}, "errors": {}, "sources": {}, "files": {}}
    for path in paths:
        found = DagBag(path, bundle_path=root, bundle_name="tests", safe_mode=True)
        answer["errors"] |= found.import_errors
        for dag_id, dag in found.dags.items():
            answer["dags"][dag_id] = describe(dag)
            answer["files"][dag_id] = [dag.fileloc, dag.relative_fileloc, getattr(dag, "bundle_name", None)]
        for dag_id, code in getattr(found, "dag_source_codes", {}).items():
            answer["sources"][dag_id] = [code.language, code.source_code]
    return answer


def faults(root: Path, _paths: list[Path]) -> dict[str, Any]:
    """Return the import errors of a bundle as the configured importers give them, field by field."""
    from airflow.dag_processing.bundles.local import LocalDagBundle
    from airflow.sdk.importers import DagImportError, get_importer_registry

    bundle = LocalDagBundle(name="tests", path=str(root))
    answer: dict[str, Any] = {"faults": {}}
    for importer, item in get_importer_registry("tests").list_dag_definitions(bundle, safe_mode=True):
        errors = [item] if isinstance(item, DagImportError) else importer.import_definition(item, bundle).errors
        for error in errors:
            fields = [error.line_number, error.column_number, error.error_type, error.message, error.suggestion]
            answer["faults"].setdefault(Path(error.source_reference).name, []).append(fields)
    return answer


def stubs(root: Path, files: list[Path]) -> dict[str, Any]:
    """Return what our bundle's stubs give, which is how Airflow 3.3 reads pipelines."""
    from edgewright.factory import load_stub

    answer: dict[str, Any] = {"dags": {}}
    for file in files:
        namespace: dict[str, Any] = {}
        load_stub(namespace, f"{file}.py", str(file.relative_to(root)), file.read_bytes().decode())
        answer["dags"] |= {dag.dag_id: describe(dag) for dag in namespace.values() if type(dag).__name__ == "DAG"}
    return answer


def main() -> None:
    """Answer what was asked."""
    kind, root, *paths = sys.argv[1:]
    import airflow

    answer = {"bag": bag, "faults": faults, "stubs": stubs}[kind](Path(root), [Path(path) for path in paths])
    heavy = sorted(HEAVY & {name.partition(".")[0] for name in sys.modules})
    print("\n" + json.dumps({"airflow": airflow.__version__, "heavy": heavy, **answer}))


if __name__ == "__main__":
    main()
