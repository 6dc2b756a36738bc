"""``edgewright fleet``: which node runs which version since when, and when it was heard of last."""

from __future__ import annotations

import datetime
import re
from typing import Any

import click

from edgewright.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HEAD = ("NODE", "MODEL", "VERSION", "TARGET", "SINCE", "LAST REPORT", "")


@click.command("fleet")
@click.option("--model", help="Only nodes that run this model.")
@click.option("--silent", metavar="10m", help="Only nodes that were not heard of for that long.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(model: str | None, silent: str | None, as_json: bool) -> None:
    """Show the nodes, as `edgewright sink fleet` keeps them from their reports."""
    from edgewright.artifacts import ArtifactStore
    from edgewright.cli.output import print_json
    from edgewright.installation import Installation
    from edgewright.streams.fleet import Fleet

    least = _seconds(silent) if silent else 0.0
    now = datetime.datetime.now(datetime.UTC)
    nodes = [
        {**node, "silent_seconds": round((now - datetime.datetime.fromisoformat(node["last_report"])).total_seconds())}
        for node in Fleet(ArtifactStore(Installation.load().store)).nodes()
        if model is None or (node.get("model") or {}).get("name") == model
    ]
    nodes = [node for node in nodes if node["silent_seconds"] >= least]
    if as_json:
        print_json({"nodes": [{key: value for key, value in node.items() if key != "ended"} for node in nodes]})
        return
    if not nodes:
        click.echo("no nodes; `edgewright sink fleet --from kafka://HOST:PORT/TOPIC` keeps what they report")
        return
    rows = [_HEAD, *(_row(node) for node in nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _row(node: dict[str, Any]) -> tuple[str, ...]:
    model = node.get("model") or {}
    since = str(model.get("since") or "")[:19].replace("T", " ")
    return (
        node["node"], str(model.get("name") or "-"), str(model.get("version") or "-"), str(model.get("target") or "-"),
        since or "-", _ago(node["silent_seconds"]), str(node.get("problem") or ""),
    )  # fmt: skip


def _ago(seconds: int) -> str:
    for unit in ("d", "h", "m"):
        if seconds >= 2 * _UNITS[unit]:
            return f"{seconds // _UNITS[unit]} {unit} ago"
    return f"{seconds} s ago"


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise ConfigError(f"{text!r} is no time", where="--silent", hint="30s, 10m, 2h or 1d")
    return float(int(found[1]) * _UNITS[found[2]])
