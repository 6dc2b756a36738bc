"""A checked pipeline as JSON is the same pipeline, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgewright.spec import compiled, load_pipelines

GOOD = sorted((Path(__file__).resolve().parents[1] / "corpus" / "good").glob("*.yaml"))


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_every_good_file_survives_the_round_trip(file: Path) -> None:
    pipelines = load_pipelines(file)
    data, sha256 = compiled.dump(pipelines)
    found = compiled.load(data, sha256, file.read_text(encoding="utf-8"), file)
    assert found == [replace(pipeline, inherited=()) for pipeline in pipelines]


def test_what_was_changed_or_comes_from_another_release_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pipelines = load_pipelines(GOOD[0])
    data, sha256 = compiled.dump(pipelines)
    assert compiled.load(data + b" ", sha256, pipelines[0].text, GOOD[0]) is None
    monkeypatch.setattr(compiled, "__version__", "9.9.9")
    assert compiled.load(data, sha256, pipelines[0].text, GOOD[0]) is None
