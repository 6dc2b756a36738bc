"""A checked pipeline as JSON is the same pipeline, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgewright.spec import compiled, load_pipeline

GOOD = sorted((Path(__file__).resolve().parents[1] / "corpus" / "good").glob("*.yaml"))


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_every_good_file_survives_the_round_trip(file: Path) -> None:
    pipeline = load_pipeline(file)
    data, sha256 = compiled.dump(pipeline)
    assert compiled.load(data, sha256, pipeline.text, file) == replace(pipeline, inherited=())


def test_what_was_changed_or_comes_from_another_release_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_pipeline(GOOD[0])
    data, sha256 = compiled.dump(pipeline)
    assert compiled.load(data + b" ", sha256, pipeline.text, GOOD[0]) is None
    monkeypatch.setattr(compiled, "__version__", "9.9.9")
    assert compiled.load(data, sha256, pipeline.text, GOOD[0]) is None
