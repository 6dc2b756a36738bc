"""The page and the document that ``validate`` leaves behind."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

_STYLE = """
:root{color-scheme:light dark;--line:#d5dbe3;--soft:#667;--bad:#b3261e;--good:#12805c}
@media(prefers-color-scheme:dark){:root{--line:#39424e;--soft:#9ab;--bad:#ff8a80;--good:#58d3a5}}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}th,td{border-bottom:1px solid var(--line);
padding:.35rem .6rem;text-align:left;vertical-align:top}th{color:var(--soft);font-weight:600}
td.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:var(--bad)}.good{color:var(--good)}
"""


def write_report(folder: Path, document: dict[str, Any]) -> None:
    """Write ``report.json`` and a self-contained ``report.html``.

    Args:
        folder: Where to.
        document: Counts, reasons, columns and classes.
    """
    (folder / "report.json").write_text(json.dumps(document, indent=1, ensure_ascii=False))
    (folder / "report.html").write_text(_page(document))


def _page(document: dict[str, Any]) -> str:
    rejected = document["rejected"]
    verdict = (
        f'<span class="bad">{rejected:,} rejected</span>' if rejected else '<span class="good">all are right</span>'
    )
    parts = [(name, counts["kept"], counts["rejected"]) for name, counts in document["parts"].items()]
    reasons = [(entry["reason"], entry["count"], entry["example"]) for entry in document["reasons"]]
    columns = [
        (c["name"], c["type"], document["missing"].get(c["name"], 0), c.get("minimum", ""), c.get("maximum", ""))
        for c in document["columns"]
    ]
    body = [
        f"<h1>Data check</h1><p>{document['rows']:,} rows, {verdict} ({document['rejected_share']:.2%}).</p>",
        _table("Parts", ("part", "kept", "rejected"), parts),
        _table("Reasons", ("reason", "rows", "example"), reasons) if reasons else "",
        _table("Classes", ("class", "rows"), list(document["classes"].items())) if document["classes"] else "",
        _table("Columns", ("column", "type", "missing", "least in train", "largest in train"), columns),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Data check</title><style>{_STYLE}</style>{''.join(body)}</html>"
    )


def _table(title: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    cells = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<h2>{title}</h2><table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{cells}</table>"


def _cell(value: Any) -> str:
    number = isinstance(value, (int, float))
    return f'<td class="n">{value:,}</td>' if number else f"<td>{html.escape(str(value))}</td>"
