"""Whether a text is a Jinja template, and whether the filters, tests and names in it exist.

Only ``edgewright check`` looks: parsing a template costs more than reading the document around it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from typing import Any

from edgewright.spec.faults import Faults, Path, listing, near

#: What Airflow adds to Jinja's own filters.
_AIRFLOW_FILTERS = ("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz")


#: What needs no second look.
_PLAIN = re.compile(r"\{\{\s*[A-Za-z_][\w.]*\s*\}\}")


@functools.cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(extensions=["jinja2.ext.do"], autoescape=False)  # noqa: S701 (nothing is rendered)


def check_template(text: str, path: Path, faults: Faults, *, names: Collection[str] | None = None) -> None:
    """Note what is wrong with a template.

    Args:
        text: The template.
        path: Its place.
        faults: Where to note.
        names: The only names that it may use; default: any.
    """
    if names is None and "{" not in _PLAIN.sub("", text):
        return
    import jinja2
    from jinja2 import meta, nodes

    env = _environment()
    try:
        tree = env.parse(text)
    except jinja2.TemplateSyntaxError as error:
        faults.add(path, f"not a template: {error.message}", allowed="see Jinja's syntax", code="template")
        return
    for kind, what, known in (
        (nodes.Filter, "filter", [*env.filters, *_AIRFLOW_FILTERS]),
        (nodes.Test, "test", list(env.tests)),
    ):
        for node in tree.find_all(kind):
            if node.name is not None and node.name not in known:
                names = names and ()  # Jinja itself can go no further
                faults.add(path, f"no such {what} of Jinja: {node.name!r}",
                           allowed=f"{what}s are: {listing(sorted(known))}",
                           suggestion=near(node.name, known), code="template")  # fmt: skip
    if not names:
        return
    for name in sorted(meta.find_undeclared_variables(tree) - set(names) - env.globals.keys()):
        faults.add(path, f"no such name: {name!r}", allowed=f"names are: {listing(sorted(names), 20)}",
                   suggestion=near(name, names), code="template")  # fmt: skip
