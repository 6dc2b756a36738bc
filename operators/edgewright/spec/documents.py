"""Several pipelines in one file: the texts between its ``---`` lines, each at its own place."""

from __future__ import annotations

import itertools
import re

import yaml

from edgewright.spec.nodes import MAX_BYTES, Loader

_MARKER = re.compile(r"^---(\s|$)", re.MULTILINE)


def documents(text: str) -> list[str]:
    """Return the documents of a text, each with as many empty lines in front as others stand before it.

    So positions in a document are positions in the file. A text that is no valid YAML is one document: its reader says
    what is wrong.
    """
    if len(text) > MAX_BYTES or _MARKER.search(text) is None:
        return [text]
    try:
        events = yaml.parse(text, Loader=Loader)
        starts = [event.start_mark.line for event in events if isinstance(event, yaml.DocumentStartEvent)]  # type: ignore[union-attr]
    except (yaml.YAMLError, ValueError):
        return [text]
    if len(starts) < 2:
        return [text]
    lines = text.splitlines(keepends=True)
    # comments and directives before the first document are its own
    bounds = [0, *starts[1:], len(lines)]
    parts = ["\n" * start + "".join(lines[start:end]) for start, end in itertools.pairwise(bounds)]
    return [part for part in parts if part.strip().strip("-").strip()]
