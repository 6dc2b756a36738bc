"""``edgewright gc``: remove runs, cache entries and artifacts that nothing needs any more.

What stays: the runs that are young enough, the last ones of each pipeline, every run that made a version which is
still registered, and whatever artifact or cache entry one of these runs (or a young cache entry) refers to. Artifacts
of the last day stay in any case: a run that is under way has not written down yet what it made.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgewright.artifacts import ArtifactStore

GRACE = datetime.timedelta(days=1)
_AGE = re.compile(r"^(\d+)([hdw])$")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass
class Plan:
    """What could be removed.

    Attributes:
        runs: Keys of runs.
        entries: Keys of cache entries.
        artifacts: Keys of artifacts, with their sizes in bytes.
        kept_runs: How many runs stay.
        kept_artifacts: How many artifacts stay.
    """

    runs: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    artifacts: dict[str, int] = field(default_factory=dict)
    kept_runs: int = 0
    kept_artifacts: int = 0

    @property
    def size(self) -> int:
        """Bytes of the artifacts that could be removed."""
        return sum(self.artifacts.values())


def _age(ctx: click.Context, parameter: click.Parameter, value: str) -> datetime.timedelta:
    match = _AGE.match(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no age: write 12h, 30d or 8w")
    return datetime.timedelta(**{_UNITS[match.group(2)]: int(match.group(1))})


@click.command("gc")
@click.option("--older-than", callback=_age, default="30d", show_default=True, help="Keep what is younger.")
@click.option("--keep-runs", type=click.IntRange(min=0), default=10, show_default=True, help="Keep so many a pipeline.")
@click.option("--yes", is_flag=True, help="Remove it. Without this, only show what would go.")
@click.option("--dry-run", is_flag=True, help="Only show what would go (the default).")
@click.option("--store", "root", metavar="URI", help="Artifact store. Default: the installation's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    older_than: datetime.timedelta, keep_runs: int, yes: bool, dry_run: bool, root: str | None, as_json: bool
) -> None:
    """Remove artifacts and runs that nothing needs any more.

    What stays: young runs, the last ones of each pipeline, runs whose model is still registered, and everything that
    these refer to. Nothing is removed when the registry does not answer.
    """
    from edgewright.artifacts import ArtifactStore
    from edgewright.cli.output import print_json
    from edgewright.installation import Installation

    if yes and dry_run:
        raise click.UsageError("--yes and --dry-run exclude each other")
    installation = Installation.load()
    store = ArtifactStore(root or installation.store)
    # an answer is needed even for showing: what it protects would be shown as removable otherwise
    plan = make_plan(store, registered_versions(installation.tracking_uri), older_than, keep_runs)
    if yes:
        remove(store, plan)
    if as_json:
        print_json(
            {
                "removed": yes, "runs": plan.runs, "cache_entries": plan.entries, "artifacts": sorted(plan.artifacts),
                "bytes": plan.size, "kept_runs": plan.kept_runs, "kept_artifacts": plan.kept_artifacts,
            }
        )  # fmt: skip
    else:
        click.echo(plan_text(plan, removed=yes))


def registered_versions(tracking_uri: str) -> set[tuple[str, str]]:
    """Return ``(name, version)`` of everything that is registered.

    Raises:
        Unavailable: the registry does not answer, so nobody knows what it needs.
    """
    from edgewright.registry import Registry

    return {(model.name, version) for model in Registry(tracking_uri).models() for version in model.versions}


def make_plan(
    store: ArtifactStore, registered: set[tuple[str, str]], older_than: datetime.timedelta, keep_runs: int
) -> Plan:
    """Return what could be removed; nothing is touched.

    Args:
        store: The artifact store.
        registered: ``(name, version)`` of every registered version.
        older_than: What is younger stays.
        keep_runs: So many of the last runs of each pipeline stay.
    """
    limit = (datetime.datetime.now(datetime.UTC) - older_than).isoformat()
    plan = Plan()
    needed: set[str] = set()
    for number, run in _numbered(_runs(store)):
        young = run.started >= limit or number < keep_runs
        if young or run.published & registered:
            plan.kept_runs += 1
            needed |= run.digests
        else:
            plan.runs.append(run.key)
    for key in store.list_keys("cache"):
        entry = store.read_json(key) or {}
        digests = set(_digests(entry))
        if entry.get("started", "") >= limit:
            needed |= digests
        elif not digests or not digests <= needed:
            plan.entries.append(key)
    _plan_artifacts(store, plan, needed, limit)
    return plan


@dataclass
class _Run:
    key: str
    dag_id: str
    started: str = ""
    digests: set[str] = field(default_factory=set)
    published: set[tuple[str, str]] = field(default_factory=set)


def _runs(store: ArtifactStore) -> list[_Run]:
    runs: dict[str, _Run] = {}
    for key in store.list_keys("runs"):
        parts = key.split("/")
        if len(parts) != 5 or parts[4] not in ("request.json", "result.json"):
            continue
        run = runs.setdefault("/".join(parts[:3]), _Run("/".join(parts[:3]), parts[1]))
        document = store.read_json(key) or {}
        run.started = max(run.started, str(document.get("started") or document.get("data_time") or ""))
        run.digests |= set(_digests(document))
        for ref in document.get("outputs", {}).values():
            if document.get("step") == "publish" and "version" in ref["meta"]:
                run.published.add((str(ref["meta"].get("name")), str(ref["meta"]["version"])))
    return sorted(runs.values(), key=lambda run: run.started, reverse=True)


def _numbered(runs: list[_Run]) -> Iterator[tuple[int, _Run]]:
    """Yield the runs with their number among those of their pipeline, the newest being 0."""
    seen: dict[str, int] = {}
    for run in runs:
        yield seen.get(run.dag_id, 0), run
        seen[run.dag_id] = seen.get(run.dag_id, 0) + 1


def _digests(value: Any) -> Iterator[str]:
    """Yield the digest of every artifact that a document refers to."""
    if isinstance(value, dict):
        if {"kind", "uri", "sha256"} <= set(value):
            yield str(value["sha256"])
        for item in value.values():
            yield from _digests(item)
    elif isinstance(value, list):
        for item in value:
            yield from _digests(item)


def _plan_artifacts(store: ArtifactStore, plan: Plan, needed: set[str], limit: str) -> None:
    import fsspec

    system, base = fsspec.core.url_to_fs(store.root)
    newest = min(limit, (datetime.datetime.now(datetime.UTC) - GRACE).isoformat())
    folders: dict[str, list[str]] = {}
    for key in store.list_keys("artifacts"):
        folders.setdefault("/".join(key.split("/")[:3]), []).append(key)
    for folder, keys in folders.items():
        written = max(system.modified(f"{base}/{key}") for key in keys)
        if folder.rpartition("/")[2] in needed or written.astimezone(datetime.UTC).isoformat() >= newest:
            plan.kept_artifacts += 1
        else:
            plan.artifacts[folder] = sum(int(system.size(f"{base}/{key}") or 0) for key in keys)


def remove(store: ArtifactStore, plan: Plan) -> None:
    """Remove what was planned: first what refers, then what is referred to, each manifest before its files."""
    from edgewright.artifacts.store import MANIFEST

    for key in (*plan.entries, *plan.runs):
        store.delete(key)
    for key in plan.artifacts:
        store.delete(f"{key}/{MANIFEST}")
        store.delete(key)


def plan_text(plan: Plan, *, removed: bool) -> str:
    """Return a plan for people."""
    from edgewright.cli.output import count, size

    verb = "removed" if removed else "would remove"
    lines = [f"  {key}" for key in (*plan.runs, *plan.entries, *plan.artifacts)]
    lines.append(
        f"{verb} {count(len(plan.runs), 'run')}, {count(len(plan.artifacts), 'artifact')} ({size(plan.size)}), "
        f"{len(plan.entries)} cache entries; {count(plan.kept_runs, 'run')} and "
        f"{count(plan.kept_artifacts, 'artifact')} stay"
    )
    if lines[:-1] and not removed:
        lines.append("run it again with --yes to remove them")
    return "\n".join(lines)
