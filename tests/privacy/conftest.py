"""A store with a person in it: a dataset, its checked version, and a model that learnt from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.buckets import s3_endpoint, s3_store
from support.people import INGEST, KEY, MODEL, PEOPLE, RunStep

from edgewright.artifacts import ArtifactStore
from edgewright.steps.contract import Identity, Source, StepRequest, StepResult
from edgewright.steps.execute import execute

__all__ = ["s3_endpoint", "s3_store"]


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_PSEUDONYM_KEY", KEY)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "home" / "store")


@pytest.fixture
def run_step(tmp_path: Path, store: ArtifactStore, key: None) -> RunStep:
    """Run a step of the pipeline ``people``, whose source has 40 rows of each person."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    lines = [f"{name},{20 + n + 3 * place},{(n + place) % 2}" for n in range(40) for place, name in enumerate(PEOPLE)]
    (folder / "people.csv").write_text("\n".join(["person,age,y", *lines]) + "\n")
    (folder / "model.py").write_text(MODEL)

    def run(step: str, config: dict[str, Any], *, run: str = "r1") -> StepResult:
        identity = Identity(dag_id="people", run_id=run, task_id=step)
        source = Source(folder=str(folder))
        return execute(StepRequest(step=step, config=config, identity=identity, source=source, store=store.root))

    return run


@pytest.fixture
def made(run_step: RunStep) -> dict[str, StepResult]:
    """The results of a run."""
    data = run_step("ingest", INGEST)
    checked = run_step("validate", {"data": data.outputs["dataset"].model_dump(mode="json"), "leakage": False})
    return {"ingest": data, "validate": checked}
