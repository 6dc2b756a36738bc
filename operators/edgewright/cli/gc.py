"""``edgewright gc``: remove runs, cache entries and artifacts that nothing needs any more."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgewright.artifacts.ages import age_of
from edgewright.errors import Unavailable

if TYPE_CHECKING:
    from edgewright.artifacts.gc import Report
    from edgewright.installation import Installation


def age(ctx: click.Context, parameter: click.Parameter, value: str) -> datetime.timedelta:
    """Read an age: ``12h``, ``30d`` or ``8w``."""
    try:
        return age_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("gc")
@click.option("--older-than", callback=age, default="30d", show_default=True, help="Keep what is younger.")
@click.option("--keep-runs", type=click.IntRange(min=0), default=10, show_default=True, help="Keep so many a pipeline.")
@click.option("--yes", is_flag=True, help="Remove it. Without this, only show what would go.")
@click.option("--dry-run", is_flag=True, help="Only show what would go (the default).")
@click.option("--store", "root", metavar="URI", help="Artifact store. Default: the installation's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    older_than: datetime.timedelta, keep_runs: int, yes: bool, dry_run: bool, root: str | None, as_json: bool
) -> None:
    """Remove artifacts and runs that nothing needs any more.

    What stays: young runs, the last ones of each pipeline, runs whose model is still registered, everything that these
    refer to, and whatever was written during the last day. Nothing is removed when the registry does not answer. Of
    events only payloads go of batches whose runs ended well and do not stay: none that waits, failed or could not be
    read. A version of a dataset whose retention: is over goes in any case, and leaves a tombstone.
    """
    from edgewright.artifacts import ArtifactStore
    from edgewright.artifacts.gc import Policy, collect, plan
    from edgewright.artifacts.retention import DatasetRetention
    from edgewright.cli.output import print_json
    from edgewright.installation import Installation
    from edgewright.streams.retention import EventRetention

    if yes and dry_run:
        raise click.UsageError("--yes and --dry-run exclude each other")
    installation = Installation.load()
    store = ArtifactStore(root or installation.store)
    # an answer is needed even for showing: what it protects would be shown as removable otherwise
    _demand_all_registries(installation)
    keep, aliased = registered_digests(installation.tracking_uri)
    policy = Policy(older_than=older_than, keep_runs=keep_runs)
    report = plan(store, keep, policy)
    retention, datasets = EventRetention(store, older_than, report.runs), DatasetRetention(store, policy, aliased)
    events, expired = retention.plan(), datasets.plan(report)
    report.removals += [*events.removals, *expired.removals]
    report.kept |= events.kept
    _count_out(report, expired)
    if yes:
        report = collect(store, report, confirm=lambda one: retention.confirm(one) and datasets.confirm(one))
    if as_json:
        removals = [asdict(removal) for removal in report.removals]
        print_json({"removed": yes, "removals": removals, "bytes": report.size, "kept": report.kept})
    else:
        click.echo(report_text(report, removed=yes))


def _demand_all_registries(installation: Installation) -> None:
    """Refuse to guess: the stack's own registry needs artifacts too, and only its server can say which."""
    from edgewright.cli.stack.mlflow import DATABASE

    if (installation.home / DATABASE).exists() and not installation.tracking_uri.startswith("http"):
        raise Unavailable(
            "the stack has a registry of its own, which does not answer while the stack is down",
            where=str(installation.home / DATABASE),
            hint="start it: edgewright up",
        )


def _count_out(report: Report, expired: Report) -> None:
    """Take what goes by its retention out of the count of what stays."""
    report.kept["artifact"] -= len(expired.of("expired dataset")) + len(expired.of("expired report"))
    report.kept["cache entry"] -= len(expired.of("cache entry"))


def registered_digests(tracking_uri: str) -> tuple[set[str], set[str]]:
    """Return the digests of all registered releases, and of those that an alias points to.

    Raises:
        Unavailable: the registry does not answer, so nobody knows what it needs.
    """
    from edgewright.registry import Registry

    registry = Registry(tracking_uri)
    found = [version for model in registry.models() for version in registry.versions(model.name) if version.digest]
    return {version.digest for version in found}, {version.digest for version in found if version.aliases}


def report_text(report: Report, *, removed: bool) -> str:
    """Return what goes, or went, for people."""
    from edgewright.cli.output import count, size

    lines = [f"  {item.what:<20} {size(item.size):>10}  {item.key}  ({item.why})" for item in report.removals]
    verb = "removed" if removed else "would remove"
    kept = ", ".join(f"{number} {what if number == 1 else _plural(what)}" for what, number in report.kept.items())
    lines.append(f"{verb} {count(len(report.removals), 'thing')} ({size(report.size)}); {kept} stay")
    if report.removals and not removed:
        lines.append("run it again with --yes to remove them")
    return "\n".join(lines)


def _plural(what: str) -> str:
    return {"cache entry": "cache entries", "batch of events": "batches of events"}.get(what, f"{what}s")
