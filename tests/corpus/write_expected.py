"""Write what is expected of each bad file beside it: ``python tests/corpus/write_expected.py``, then read the diff.

The first line says what the JSON Schema alone makes of the document: it refuses it, accepts it (because the fault is
one that a schema cannot see), or there is no document to look at.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jsonschema

from edgewright.errors import SpecError
from edgewright.spec import load_pipelines, parse_pipelines
from edgewright.spec.documents import documents
from edgewright.spec.faults import Faults
from edgewright.spec.nodes import read
from edgewright.spec.schema import build

HERE = Path(__file__).resolve().parent


def faults_of(file: Path) -> list[str]:
    """Return the faults of a file, one a line, with the file's bare name."""
    try:
        parse_pipelines(file.read_text(encoding="utf-8"), file, shown=file.name, thorough=True)
    except SpecError as error:
        return str(error).splitlines()
    return []


def verdict_of(file: Path, validator: jsonschema.Draft202012Validator) -> str:
    """Return what the schema makes of a file: refuses, accepts, or no document."""
    for text in documents(file.read_text(encoding="utf-8")):
        document = read(text, Faults(file.name))
        if document is None:
            return "no document"
        if not validator.is_valid(document):
            return "refuses"
    return "accepts"


def expected_of(file: Path, validator: jsonschema.Draft202012Validator) -> str:
    """Return the text of a file's ``.expected``."""
    return "\n".join([f"schema: {verdict_of(file, validator)}", *faults_of(file)]) + "\n"


def main() -> int:
    """Write all of them; end with 1 if a bad file has no fault."""
    validator = jsonschema.Draft202012Validator(build())
    silent = []
    for file in sorted((HERE / "bad").glob("*.yaml")):
        if not faults_of(file):
            silent.append(file.name)
        file.with_suffix(".expected").write_text(expected_of(file, validator), encoding="utf-8")
    for file in sorted((HERE / "good").glob("*.yaml")):
        load_pipelines(file, thorough=True)
    print(f"no fault at all: {', '.join(silent) or 'none'}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
