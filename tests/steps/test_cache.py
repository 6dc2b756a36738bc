"""The cache key, part by part, and entries that must not be used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.models import Workplace

from edgewright.spec.steps import STEPS
from edgewright.steps import cache
from edgewright.steps.contract import Identity, Source, StepRequest
from edgewright.steps.execute import validate_config

SPEC = STEPS["train"]
REF = {"kind": "dataset", "uri": "file:///store/a", "sha256": "a" * 64, "size": 1, "meta": {"rows": 3}}
CONFIG = {"data": REF, "entry": "model.py:fit", "args": {"alpha": 1.0}}


@pytest.fixture
def request_of_run(pipeline_folder: Path) -> StepRequest:
    (pipeline_folder / "model.py").write_text("def fit(data, alpha):\n    pass\n")
    identity = Identity(dag_id="d", run_id="r", task_id="t")
    return StepRequest(step="train", identity=identity, source=Source(folder=str(pipeline_folder)), store="/tmp/none")


def key(request: StepRequest, config: dict[str, Any] = CONFIG, spec: Any = SPEC, state: Any = None) -> str:
    return cache.key_of(cache.key_components(spec, validate_config(spec, config), request, state or {}))


def test_every_part_of_the_key_matters(request_of_run: StepRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = key(request_of_run)
    other_input = CONFIG | {"data": REF | {"sha256": "b" * 64}}
    keys = {
        "step": key(request_of_run, spec=dataclasses.replace(SPEC, name="other")),
        "version": key(request_of_run, spec=dataclasses.replace(SPEC, version=SPEC.version + 1)),
        "config": key(request_of_run, CONFIG | {"args": {"alpha": 2.0}}),
        "seed": key(request_of_run, CONFIG | {"seed": 1}),
        "input": key(request_of_run, other_input),
        "image": key(request_of_run.model_copy(update={"image": "sha256:1"})),
        "state": key(request_of_run, state={"champion": None}),
        "libraries": key(request_of_run, spec=dataclasses.replace(SPEC, libraries=("pydantic",))),
    }
    with monkeypatch.context() as patch:
        patch.setattr(cache, "describe", lambda libraries: {"python": "3.99.0"})
        keys["python"] = key(request_of_run)
    folder = Path(request_of_run.source.folder)  # type: ignore[union-attr]
    (folder / "model.py").write_text("def fit(data, alpha):\n    return 1\n")
    keys["code"] = key(request_of_run)
    (folder / "table.csv").write_text("a\n")
    keys["data beside the code"] = key(request_of_run)
    assert len({first, *keys.values()}) == len(keys) + 1


def test_what_does_not_change_the_outcome_is_no_part_of_the_key(request_of_run: StepRequest) -> None:
    moved = CONFIG | {"data": REF | {"uri": "s3://elsewhere/a", "meta": {}}}
    later = request_of_run.model_copy(
        update={"identity": Identity(dag_id="d", run_id="other", task_id="t", try_number=2), "params": {"x": 1}}
    )
    assert key(later, moved) == key(request_of_run)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    (tmp_path / "work").mkdir()
    found = Workplace(tmp_path / "work")
    (found.code / "d.csv").write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    return found


def entry_of(place: Workplace) -> Path:
    (found,) = (place.root / "store" / "cache").rglob("*.json")
    return found


def test_an_entry_whose_artifact_is_damaged_is_not_used_and_the_artifact_is_mended(place: Workplace) -> None:
    first = place.run("ingest", source="d.csv", label="y")
    ref = first.outputs["dataset"]
    assert place.run("ingest", source="d.csv", label="y").cache.hit
    file = place.store.fetch(ref) / "train.parquet"
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    again = place.run("ingest", source="d.csv", label="y")
    assert not again.cache.hit
    assert "its artifact dataset is damaged" in again.cache.reason
    assert place.store.verify(ref)
    assert place.run("ingest", source="d.csv", label="y").cache.hit


def test_an_entry_whose_artifact_is_gone_is_not_used(place: Workplace) -> None:
    ref = place.run("ingest", source="d.csv", label="y").outputs["dataset"]
    place.store.delete(f"artifacts/{ref.sha256[:2]}/{ref.sha256}")
    again = place.run("ingest", source="d.csv", label="y")
    assert not again.cache.hit
    assert place.store.verify(again.outputs["dataset"])


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"version": 99})])
def test_an_entry_that_cannot_be_read_is_not_used(place: Workplace, text: str) -> None:
    place.run("ingest", source="d.csv", label="y")
    entry_of(place).write_text(text)
    again = place.run("ingest", source="d.csv", label="y")
    assert not again.cache.hit
    assert "earlier result cannot be" in again.cache.reason
    assert place.run("ingest", source="d.csv", label="y").cache.hit
