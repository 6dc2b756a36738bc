"""The report of an erasure as a page, for whoever has to answer the person."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.privacy.findings import NOT_SEARCHED, Erasure, Finding
from edgewright.steps.reports import Report, Table

_HEAD = ("what", "where", "rows, messages or files", "")


def page(found: Erasure) -> str:
    """Return the page; it names the person by the pseudonym only."""
    did = "would be erased" if found.dry_run else "erased"
    tables = [
        _table(f"What {'would go' if found.dry_run else 'is gone'}", found.erased, "nothing was found"),
        _table("What goes by itself", found.expiring, "nothing"),
        _table("What cannot be erased", found.kept, "nothing"),
        Table("Where was looked", ("place", "how much"), list(found.searched.items()), _NOT_KNOWN),
    ]
    facts = {"requested": found.requested or "-", "finished": found.finished}
    return Report(f"{found.subject}: {did}", _sentence(found), tables=tables, facts=facts, data={}).html()


_NOT_KNOWN = f"Not looked at: {', '.join(NOT_SEARCHED)}."


def _sentence(found: Erasure) -> str:
    if found.dry_run:
        return "Nothing was changed."
    if found.complete:
        return "Nothing of the person is left in the places that were looked at."
    return "Something is left, or goes later: see below."


def _table(title: str, findings: Sequence[Finding], nothing: str) -> Table:
    rows = [(one.what, one.where, one.count, one.how) for one in findings]
    return Table(title, _HEAD, rows, "" if rows else nothing)
