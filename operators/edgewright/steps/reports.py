"""Reports: one HTML file that holds everything, to be opened from anywhere and kept for years."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from edgewright.errors import GateResult

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2128;--soft:#636c76;--line:#d8dee4;--page:#f6f8fa;--card:#fff;--good:#1a7f37;
--bad:#cf222e;--accent:#2563eb}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#8d96a0;--line:#30363d;--page:#0d1117;--card:#161b22;
--good:#3fb950;--bad:#f85149;--accent:#60a5fa}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1060px;margin:0 auto;padding:2rem 1rem 4rem}h1{font-size:1.6rem;margin:0}
h2{font-size:1.05rem;margin:0 0 .8rem}.sub{color:var(--soft);margin:.2rem 0 1.4rem;overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.2rem;margin:0 0 1rem;
overflow-x:auto}table{border-collapse:collapse;width:100%}
th{font-weight:600;text-align:left;color:var(--soft);font-size:.85rem}
th,td{padding:.32rem .7rem .32rem 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.pass,.fail{font-weight:600;white-space:nowrap}.pass{color:var(--good)}.fail{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(290px,1fr));gap:1rem}
.charts img{width:100%;height:auto}
.badge{display:inline-block;padding:.1rem .6rem;border-radius:1rem;border:1px solid currentColor;font-size:.85rem;
margin-left:.6rem;vertical-align:middle}.note{color:var(--soft);margin:.6rem 0 0}code{overflow-wrap:anywhere}
"""


@dataclass
class Table:
    """Rows of texts and numbers; numbers stand right.

    Attributes:
        title: Heading of its section.
        head: Column heads.
        rows: Cells.
        note: A sentence below.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclass
class Report:
    """What a page shows, from the top.

    Attributes:
        title: What was measured.
        subtitle: On which rows.
        gates: Verdicts; they come first.
        tables: Sections.
        charts: PNG bytes by name.
        facts: Names and values at the end.
        data: What goes into ``metrics.json`` beside it.
    """

    title: str
    subtitle: str
    gates: Sequence[GateResult] = ()
    tables: list[Table] = field(default_factory=list)
    charts: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``report.html``, ``metrics.json`` and the charts as files of their own."""
        (folder / "report.html").write_text(self.html(), encoding="utf-8")
        text = json.dumps(self.data, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        for name, png in self.charts.items():
            (folder / f"{name}.png").write_bytes(png)

    def html(self) -> str:
        """Return the page; it loads nothing from elsewhere."""
        sections = [_gates(self.gates)] if self.gates else []
        tables = [_table(table) for table in self.tables]
        sections += tables[:1]
        if self.charts:
            sections.append(_charts(self.charts))
        sections += tables[1:]
        if self.facts:
            sections.append(_table(Table("Where this comes from", ("", ""), list(self.facts.items()))))
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body><main>"
            f'<h1>{escape(self.title)}{self._badge()}</h1><p class="sub">{escape(self.subtitle)}</p>'
            f"{''.join(sections)}</main></body></html>\n"
        )

    def _badge(self) -> str:
        if not self.gates:
            return ""
        failed = sum(not gate.passed for gate in self.gates)
        if failed:
            return f'<span class="badge fail">{failed} of {len(self.gates)} gates failed</span>'
        return f'<span class="badge pass">{"all gates" if len(self.gates) > 1 else "gate"} passed</span>'


def number(value: Any) -> str:
    """Return a number as people read it: four digits, thousands apart; ``-`` for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (abs(value) >= 1000 and float(value).is_integer()):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def _gates(gates: Iterable[GateResult]) -> str:
    rows = []
    for gate in gates:
        mark, word = ("pass", "&#10003; passed") if gate.passed else ("fail", "&#10007; failed")
        rows.append(
            f'<tr><td class="{mark}">{word}</td><td>{escape(gate.metric)}</td>'
            f'<td class="n">{number(gate.value)}</td><td class="n">{escape(gate.operator)} {gate.limit:g}</td>'
            f"<td>{escape(gate.note)}</td></tr>"
        )
    head = '<tr><th>verdict</th><th>metric</th><th class="n">measured</th><th class="n">gate</th><th></th></tr>'
    return f"<section><h2>Gates</h2><table>{head}{''.join(rows)}</table></section>"


def _table(table: Table) -> str:
    numeric = [
        all(isinstance(row[i], (int, float)) or row[i] is None for row in table.rows) for i in range(len(table.head))
    ]
    head = "".join(
        f"<th{' class=n' if n else ''}>{escape(text)}</th>" for text, n in zip(table.head, numeric, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if n else ''}>{escape(number(cell))}</td>" for cell, n in zip(row, numeric, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    head = f"<tr>{head}</tr>" if any(table.head) else ""
    return f"<section><h2>{escape(table.title)}</h2><table>{head}{body}</table>{note}</section>"


def _charts(charts: Mapping[str, bytes]) -> str:
    images = "".join(
        f'<img alt="{escape(name.replace("_", " "))}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in charts.items()
    )
    return f'<section><div class="charts">{images}</div></section>'
