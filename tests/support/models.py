"""Datasets and requests for the tests of the model steps: real folders in a real store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.steps.contract import Identity, Source, StepRequest, StepResult
from edgewright.steps.execute import execute

TYPES = {"i": "integer", "f": "number", "b": "boolean", "O": "string", "U": "string"}


def kind_of(column: pd.Series[Any]) -> str:
    """Return the type that the manifest gives a column."""
    return TYPES.get(column.dtype.kind, "string")


def put_dataset(store: ArtifactStore, folder: Path, parts: dict[str, pd.DataFrame], label: str) -> ArtifactRef:
    """Write a dataset as docs/contracts.md describes it, and store it."""
    folder.mkdir(parents=True)
    first = next(iter(parts.values()))
    whole = pd.concat(parts.values())
    regression = whole[label].dtype.kind == "f"
    described: dict[str, Any] = {}
    for name, frame in parts.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
        described[name] = {"file": f"{name}.parquet", "rows": len(frame)}
        if not regression:
            described[name]["classes"] = {str(k): int(v) for k, v in frame[label].value_counts().items()}
    manifest = {
        "version": 1,
        "label": label,
        "problem": "regression" if regression else "classification",
        "source": {"uri": "test", "sha256": "0" * 64, "bytes": 0},
        "columns": [{"name": str(name), "type": kind_of(first[name])} for name in first.columns],
        "parts": described,
        "rows": len(whole),
        "missing": {str(k): int(v) for k, v in whole.isna().sum().items() if v},
    }
    if not regression:
        manifest["classes"] = {str(k): int(v) for k, v in whole[label].value_counts().items()}
    (folder / "dataset.json").write_text(json.dumps(manifest))
    return store.put(folder, "dataset", {"rows": len(whole), "parts": sorted(parts), "label": label})


class Workplace:
    """A store, a pipeline's folder with a ``model.py``, and a way to run steps in it."""

    def __init__(self, root: Path, *, tracking_uri: str = "", registered_model: str | None = None) -> None:
        self.root = root
        self.store = ArtifactStore(root / "store")
        self.code = root / "pipeline"
        self.code.mkdir(parents=True)
        (self.code / "pipeline.yaml").write_text("dag_id: demo\n")
        self.tracking_uri = tracking_uri
        self.registered_model = registered_model
        self._count = 0

    def dataset(self, parts: dict[str, pd.DataFrame], label: str) -> ArtifactRef:
        """Store a dataset."""
        self._count += 1
        return put_dataset(self.store, self.root / f"dataset-{self._count}", parts, label)

    def model_py(self, text: str) -> None:
        """Write the user's code."""
        (self.code / "model.py").write_text(text)

    def request(self, step: str, task: str | None = None, run: str = "run-1", **config: Any) -> StepRequest:
        """Return a request as a runner would make it."""
        config = {
            key: value.model_dump(mode="json") if isinstance(value, ArtifactRef) else value
            for key, value in config.items()
        }
        return StepRequest(
            step=step,
            config=config,
            identity=Identity(dag_id="demo", run_id=run, task_id=task or step),
            source=Source(folder=str(self.code), pipeline_digest="1" * 64, commit="abc", dirty=True),
            store=self.store.root,
            tracking_uri=self.tracking_uri,
            registered_model=self.registered_model,
        )

    def run(self, step: str, task: str | None = None, run: str = "run-1", **config: Any) -> StepResult:
        """Run a step."""
        return execute(self.request(step, task, run, **config), store=self.store)

    def last(self, task: str, run: str = "run-1") -> dict[str, Any]:
        """Return the result document that a step left, failed or not."""
        document = self.store.read_json(f"runs/demo/{run}/{task}/result.json")
        assert document is not None
        return document
