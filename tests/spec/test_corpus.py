"""The corpus: every good file is taken, every bad one is refused with exactly the words beside it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jsonschema
import pytest

from edgewright.spec import load_pipelines
from edgewright.spec.schema import build

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
GOOD = sorted((CORPUS / "good").glob("*.yaml"))
BAD = sorted((CORPUS / "bad").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(build())


def _write_expected():
    spec = importlib.util.spec_from_file_location("write_expected", CORPUS / "write_expected.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = _write_expected()


def test_the_corpus_is_large() -> None:
    assert len(GOOD) >= 40
    assert len(BAD) >= 100


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_a_good_file_is_taken_by_us_and_by_the_schema(file: Path) -> None:
    for pipeline in load_pipelines(file, thorough=True):
        assert pipeline.tasks
        done: set[str] = set()
        for task in pipeline.tasks:
            assert set(task.needs) <= done
            done.add(task.id)
    assert WRITER.verdict_of(file, VALIDATOR) == "accepts"


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_bad_file_is_refused_with_exactly_these_words(file: Path) -> None:
    expected = file.with_suffix(".expected").read_text(encoding="utf-8")
    assert len(expected.splitlines()) > 1, "a bad file has at least one fault"
    assert WRITER.expected_of(file, VALIDATOR) == expected


def test_a_schema_refuses_most_of_what_can_be_seen_without_files_and_tasks() -> None:
    verdicts = [file.with_suffix(".expected").read_text().splitlines()[0] for file in BAD]
    assert verdicts.count("schema: refuses") >= 100
