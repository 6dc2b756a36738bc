"""``edgewright privacy erase``: find and remove what is stored of a person, and report what could not be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.output import count, print_json
from edgewright.errors import ConfigError

if TYPE_CHECKING:
    from edgewright.privacy.findings import Erasure, Finding

_EPILOG = "The subject is a pseudonym: edgewright privacy token prints the one of a name on standard input."


@click.command("erase", epilog=_EPILOG)
@click.option("--subject", required=True, metavar="TOKEN", help="The person's pseudonym.")
@click.option("--table", "tables", multiple=True, metavar="cassandra://HOST:PORT/KEYSPACE.TABLE",
              help="Look in this table, too. May be given several times.")  # fmt: skip
@click.option("--topic", "topics", multiple=True, metavar="kafka://HOST:PORT/TOPIC",
              help="Look in this topic, too. May be given several times.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--store", "root", metavar="URI", help="Artifact store. Default: the installation's.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the report as a page here, and JSON beside it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def erase(
    subject: str, tables: tuple[str, ...], topics: tuple[str, ...], dry_run: bool, root: str | None,
    output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Remove a person's rows from datasets, tables and topics; list what could not be erased.

    Later runs leave the person out. It may be repeated: it then finds what came meanwhile, and goes on where it was
    killed.
    """
    from edgewright.artifacts import ArtifactStore
    from edgewright.installation import Installation
    from edgewright.privacy import erase as erasing
    from edgewright.streams.addresses import cassandra_address, kafka_address

    addresses = [cassandra_address(table) for table in tables]
    for address in addresses:
        if not address.table:
            raise ConfigError("no table is named", where=address.shown, hint="cassandra://HOST:PORT/KEYSPACE.TABLE")
    report = erasing.erase(
        ArtifactStore(root or Installation.load().store), subject,
        tables=addresses, topics=[kafka_address(topic) for topic in topics],
        dry_run=dry_run, pseudonyms=erasing.key_at_hand(dict(os.environ)),
        say=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    if output is not None:
        _write(report, output)
    if as_json:
        print_json(report.as_dict())
    else:
        click.echo(text(report))


def _write(report: Erasure, output: Path) -> None:
    import json

    from edgewright.privacy.pages import page

    target = output if output.suffix == ".html" else output / "erasure.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(report), encoding="utf-8")
        target.with_suffix(".json").write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(target)) from error
    click.echo(f"wrote {target} and {target.with_suffix('.json').name}", err=True)


def text(report: Erasure) -> str:
    """Return a report for people."""
    from edgewright.privacy.findings import NOT_SEARCHED

    lines = _section("would erase" if report.dry_run else "erased", report.erased)
    lines += _section("goes by itself", report.expiring) + _section("cannot be erased", report.kept)
    looked = ", ".join(f"{number:,} {what}" for what, number in report.searched.items())
    rest = f"not looked at: {', '.join(NOT_SEARCHED)}"
    return "\n".join([*(lines or ["nothing was found"]), f"looked through {looked}", rest])


def _section(title: str, findings: list[Finding]) -> list[str]:
    if not findings:
        return []
    lines = [f"  {one.what:<11} {one.where}: {count(one.count, _UNITS[one.what])}; {one.how}" for one in findings]
    return [title, *lines]


_UNITS = {
    "dataset": "row", "artifact": "place", "increment": "row", "cassandra": "row", "kafka": "message",
    "document": "place", "model": "file", "predictions": "row", "events": "message", "unsearched": "run",
}  # fmt: skip
