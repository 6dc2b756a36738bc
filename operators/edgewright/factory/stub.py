"""Stubs: one small Python file a pipeline, because Airflow 3.3 finds Dags in nothing else.

A stub holds the YAML text, so the code view shows it and a worker needs nothing more, and the digest of the
pipeline's folder, so that it changes whenever the user's code or data change.
"""

from __future__ import annotations

import ast
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError, UserFault
from edgewright.spec import compiled, load_pipelines, parse_pipelines
from edgewright.spec.pipeline import Pipeline

SUFFIX = ".py"
_TEMPLATE = """\
# An Airflow Dag, made by Edgewright from {shown}; edit that file, not this one.
# sha256 of its folder: {digest}
from edgewright.factory import load_stub

load_stub(globals(), __file__, {name!r}, {text}{more})
"""


def stub_name(document: str) -> str:
    """Return the name of a document's stub; it tells the document's, because import errors show it."""
    return document + SUFFIX


def quoted(text: str) -> str:
    """Return Python source for a text, as readable as can be."""
    for quotes in ('"""', "'''"):
        source = f"{quotes}\\\n{text}{quotes}"
        if "\\" not in text and quotes not in text and "\r" not in text and "\0" not in text:
            try:
                if ast.literal_eval(source) == text:
                    return source
            except (SyntaxError, ValueError):
                continue
    lines = text.splitlines(keepends=True) or [""]
    return "(\n" + "\n".join(f"    {line!r}" for line in lines) + "\n)"


def render_stub(
    name: str,
    text: str | None,
    folder_digest: str,
    *,
    last_good: str | None = None,
    fault: str | None = None,
    environment: str | None = None,
    checked: str | None = None,
) -> str:
    """Return the source of a stub.

    Args:
        name: The document's path in the bundle.
        text: Its text; ``None`` where it cannot be read as UTF-8.
        folder_digest: sha256 over its folder.
        last_good: Which version was the last without faults, for a document that has some now.
        fault: What only the whole folder shows, such as a ``dag_id`` that another document has.
        environment: Which of its environments it is read for.
        checked: sha256 of the checked pipeline that is kept beside the stub.
    """
    given = {"last_good": last_good, "fault": fault, "environment": environment, "checked": checked}
    return _TEMPLATE.format(
        name=name,
        shown="".join(character if character.isprintable() else "?" for character in name),
        digest=folder_digest,
        text="None" if text is None else quoted(text),
        more="".join(f", {key}={value!r}" for key, value in given.items() if value is not None),
    )


def checked_name(document: str) -> str:
    """Return the name of a document's checked pipeline, kept beside its stub.

    It is hidden, because every other file of the folder that is not Python is part of its tasks' cache keys.
    """
    folder, slash, name = document.rpartition("/")
    return f"{folder}{slash}.{name}.checked.json"


def _kept(checked: str | None, text: str | None, file: Path) -> list[Pipeline] | None:
    if checked is None or text is None:
        return None
    try:
        data = file.with_name(checked_name(file.name)).read_bytes()
    except OSError:
        return None
    return compiled.load(data, checked, text, file)


def _read(text: str | None, file: Path, name: str, environment: str) -> list[Pipeline]:
    if text is None:
        return load_pipelines(file, environment=environment)
    return parse_pipelines(text, file, shown=name, environment=environment)


class BrokenPipeline(UserFault):
    """A pipeline has faults; runs that have begun go on with their version. Raised while Airflow imports its stub."""


def load_stub(
    namespace: MutableMapping[str, Any],
    stub: str,
    name: str,
    text: str | None,
    *,
    last_good: str | None = None,
    fault: str | None = None,
    environment: str | None = None,
    checked: str | None = None,
) -> None:
    """Put the Dags of a file's pipelines into the module that a stub is.

    Args:
        namespace: The stub's ``globals()``.
        stub: Its ``__file__``; the pipeline's folder is the folder that it stands in.
        name: The document's path in the bundle.
        text: The document.
        last_good: Which version was the last without faults.
        fault: Why it must not be loaded.
        environment: Which of its environments it is read for.
        checked: sha256 of the checked pipeline beside the stub, which saves reading the text again.

    Raises:
        SpecError: with every fault of the document.
        BrokenPipeline: the same, where an earlier version was good.
        ConfigError: an operator that it names does not exist, or another document has its ``dag_id``.
    """
    from edgewright.factory.dag import dags_of

    file = Path(stub).with_name(Path(name).name)
    try:
        if fault is not None:
            raise ConfigError(fault, where=name)
        dags = dags_of(_kept(checked, text, file) or _read(text, file, name, environment or ""), shown=name)
    except UserFault as error:
        if last_good is None:
            raise
        raise BrokenPipeline(str(error), hint=f"the last good version is {last_good}") from None
    namespace.update({f"dag_{number}": dag for number, dag in enumerate(dags)})
