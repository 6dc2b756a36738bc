"""Whether a text is a Jinja template, and whether the filters, tests and names in it exist.

Only ``edgewright check`` looks: parsing a template costs more than reading the document around it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from typing import Any

from edgewright.spec.faults import Faults, Path, listing, near

#: Names that Airflow gives a task itself (``airflow.sdk.definitions.context.KNOWN_CONTEXT_KEYS``).
CONTEXT_NAMES = frozenset(
    """asset_state_store conn dag dag_run data_interval_end data_interval_start ds ds_nodash exception
    expanded_ti_count inlet_events inlets logical_date macros map_index_template outlet_events outlets params
    partition_date partition_key prev_data_interval_end_success prev_data_interval_start_success
    prev_end_date_success prev_start_date_success reason run_id task task_instance task_instance_key_str
    task_reschedule_count task_state_store templates_dict test_mode ti triggering_asset_events try_number ts
    ts_nodash ts_nodash_with_tz var""".split()  # noqa: SIM905 (forty names)
)
#: Filters and tests for names that may not be there.
_ASKING = frozenset({"defined", "undefined", "default", "d"})
#: What Airflow adds to Jinja's own filters.
_AIRFLOW_FILTERS = ("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz")


#: What needs no second look: a name of those above, or a part of it.
_PLAIN = re.compile(r"\{\{\s*(" + "|".join(sorted([*CONTEXT_NAMES, "item"])) + r")(\.\w+)*\s*\}\}")


@functools.cache
def _environment() -> Any:
    import jinja2

    env = jinja2.Environment(extensions=["jinja2.ext.do"], autoescape=False)  # noqa: S701 (nothing is rendered)
    env.filters.update(dict.fromkeys(_AIRFLOW_FILTERS, str))
    return env


def check_template(text: str, path: Path, faults: Faults, *, names: Collection[str]) -> None:
    """Note what is wrong with a template.

    Args:
        text: The template.
        path: Its place.
        faults: Where to note.
        names: Those that it may use; one that it asks about (``is defined``, ``default``) may be any.
    """
    of_airflow = CONTEXT_NAMES.issubset(names)
    if of_airflow and "{" not in _PLAIN.sub("", text):
        return
    import jinja2

    try:
        unknown = _unknown(text, names, filters=_AIRFLOW_FILTERS if of_airflow else ())
    except (jinja2.TemplateError, RecursionError) as error:
        why = getattr(error, "message", None) or "nested too deeply"
        faults.add(path, f"not a template: {why}", allowed="see Jinja's syntax", code="template")
        return
    for what, name, known in unknown:
        faults.add(path, f"no such {what}: {name!r}", allowed=f"{what}s are: {listing(sorted(known), 20)}",
                   suggestion=near(name, known), code="template")  # fmt: skip


def _unknown(text: str, names: Collection[str], filters: Collection[str]) -> list[tuple[str, str, set[str]]]:
    """Return what a template uses that does not exist: which kind of thing, its name, and those that there are.

    Raises:
        jinja2.TemplateError: it is no template.
        RecursionError: it is nested too deeply.
    """
    from jinja2 import meta, nodes

    env = _environment()
    tree = env.parse(text)
    known_filters = set(env.filters) - {*_AIRFLOW_FILTERS} | {*filters}
    found = [
        *(("filter", node.name, known_filters) for node in tree.find_all(nodes.Filter) if node.name is not None),
        *(("test", node.name, set(env.tests)) for node in tree.find_all(nodes.Test)),
    ]
    found = [(what, name, known) for what, name, known in found if name not in known]
    if found:
        return found  # Jinja itself goes no further
    asked = {
        node.node.name
        for node in tree.find_all((nodes.Filter, nodes.Test))
        if node.name in _ASKING and isinstance(node.node, nodes.Name)
    }
    unknown = meta.find_undeclared_variables(tree) - {*names, *asked} - env.globals.keys()
    return [("name", name, {*names}) for name in sorted(unknown)]
