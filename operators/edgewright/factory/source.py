"""The document that a stub holds, read from its text alone: nothing is imported and nothing is run."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A document as a Dag's source has it.

    Attributes:
        name: Its path in the bundle; ``None`` where that is not known.
        text: The document.
        environment: Which of its ``environments:`` it was read for.
    """

    name: str | None
    text: str
    environment: str | None = None


def read_stub(source: str) -> Source | None:
    """Return the document of a stub's source; ``None`` for the source of anything else."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    for node in tree.body:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "load_stub":
            try:
                name, text = (ast.literal_eval(argument) for argument in call.args[2:4])
                more = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
            except ValueError:
                return None
            return Source(name, text, more.get("environment")) if isinstance(text, str) else None
    return None
