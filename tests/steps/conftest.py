"""Running one step as everything else does: from a request to a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright.steps.contract import Identity, Source, StepRequest, StepResult
from edgewright.steps.execute import execute

RunStep = Callable[..., StepResult]


@pytest.fixture
def pipeline_folder(tmp_path: Path) -> Path:
    """An empty pipeline folder."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    return folder


@pytest.fixture
def run_step(tmp_path: Path, pipeline_folder: Path) -> RunStep:
    """Run a step on a store of the test's own: ``run_step("ingest", {"source": ...}, task="data", run="r1")``."""

    def run(step: str, config: dict[str, Any], *, task: str | None = None, run: str = "r1", **extra: Any) -> StepResult:
        identity = Identity(dag_id="test", run_id=run, task_id=task or step)
        source = Source(folder=str(extra.pop("folder", pipeline_folder)))
        request = StepRequest(
            step=step, config=config, identity=identity, source=source, store=str(tmp_path / "store"), **extra
        )
        return execute(request)

    return run


def ref(result: StepResult, name: str) -> dict[str, Any]:
    """An output of a result as a configuration takes it."""
    return result.outputs[name].model_dump(mode="json")
