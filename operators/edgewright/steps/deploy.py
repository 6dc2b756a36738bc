"""``deploy``: make a prediction service answer with a release, or leave service and registry as they were.

Nodes of a cluster are :mod:`edgewright.steps.deploy_edge`.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, DamagedArtifact, DeployRejected, EdgewrightError, NotFound
from edgewright.installation import Installation, Service
from edgewright.spec.steps.deploy import DeployConfig
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.service_client import ServiceClient

if TYPE_CHECKING:
    from edgewright.registry import Registry

log = logging.getLogger("edgewright.steps")
#: How far an answer may be from the published score (absolute plus relative): the service's own self-test is the fine
#: one, this one only shows that requests reach the right model.
TOLERANCE = 0.03
#: Seconds that one answer of a service may take, and that all nodes together may.
ANSWER, ROLLOUT = 60.0, 600.0


@dataclass(frozen=True)
class Wanted:
    """What is to be served, as publish wrote it into the release's reference."""

    name: str
    version: str
    variant: str
    digest: str | None


def run(config: DeployConfig, context: StepContext) -> StepOutput:
    """Deploy a release.

    Raises:
        NotFound: the installation names no such service, or the service's registry has no such version; no node has
            the labels.
        ConfigError: the release has no such variant, or the service refuses the token.
        DeployRejected: the service refused the model; it serves what it served before, and the alias is back.
        Unavailable: the service does not answer.
    """
    wanted = read_release(config.release, config.variant)
    if config.to.edge is not None:
        from edgewright.steps.deploy_edge import deploy_to_nodes

        return deploy_to_nodes(config.to.edge, wanted, context, config.timeout or ROLLOUT)
    name = str(config.to.service)
    service = find_service(Installation.load(), name)
    golden = _golden(context.fetch(config.release), wanted.variant)
    start = time.perf_counter()
    with ServiceClient(name, service, timeout=config.timeout or ANSWER) as client:
        log.info("deploying %s version %s (%s) to %s", wanted.name, wanted.version, wanted.variant, client.url)
        try:
            answer = client.load(wanted.name, wanted.version, wanted.variant, wanted.digest)
            try:
                latency = _verify(client, wanted, golden)
            except DeployRejected as error:
                raise _undone(client, wanted, answer, error) from error
        except DeployRejected as error:
            raise rejected(error, wanted, context.request.tracking_uri) from error
    return _output(name, client.url, wanted, answer, time.perf_counter() - start, latency)


def _output(
    service: str, url: str, wanted: Wanted, answer: dict[str, Any], seconds: float, latency: float
) -> StepOutput:
    before = answer.get("previous") or {}
    tags = {
        "service": service,
        "url": url,
        "model": wanted.name,
        "model_version": wanted.version,
        "variant": wanted.variant,
    }
    if before.get("version"):
        tags["previous_version"] = str(before["version"])
    place = f"{service} ({url})"
    note = f"{place} serves {wanted.name} version {wanted.version} ({wanted.variant})"
    if not answer.get("changed", True):
        note += ", as before"
    elif before:
        note += f"; before it was version {before['version']} ({before['variant']})"
    metrics = {"deploy_seconds": round(seconds, 4), "latency_ms": round(latency * 1e3, 4)}
    return StepOutput(metrics=metrics, tags=tags, notes=[note])


def find_service(installation: Installation, name: str) -> Service:
    """Return a service by name.

    Raises:
        NotFound: the installation names none of that name.
    """
    if name in installation.services:
        return installation.services[name]
    known = ", ".join(sorted(installation.services))
    near = difflib.get_close_matches(name, installation.services, n=1)
    suggestion = f'; did you mean "{near[0]}"?' if near else ""
    variable = f"EDGEWRIGHT_SERVICE_{name.upper().replace('-', '_')}"
    raise NotFound(
        f"no such service: {name}{suggestion}",
        where="deploy.with.to.service",
        hint=f"this installation has: {known}"
        if known
        else f"this installation names none: `edgewright up` starts one here, or set {variable} to an address",
    )


def read_release(release: ArtifactRef, variant: str | None) -> Wanted:
    """Return what a release's reference says about it.

    Raises:
        ConfigError: it is not a published release, or it has no such variant.
    """
    meta = release.meta
    if not meta.get("name") or not meta.get("version"):
        raise ConfigError(
            "the release has no registered name and version", where="deploy.with.release",
            hint="take it from a publish task: {$x: release}",
        )  # fmt: skip
    variants = [str(item) for item in meta.get("variants") or ()]
    chosen = variant or meta.get("default_variant")
    if not chosen or (variants and chosen not in variants):
        near = difflib.get_close_matches(str(chosen), variants, n=1)
        suggestion = f'; did you mean "{near[0]}"?' if near else ""
        raise ConfigError(
            f"the release has no variant {chosen}{suggestion}" if chosen else "the release has no default variant",
            where="deploy.with.variant",
            hint=f"it has: {', '.join(variants) or 'none'}",
        )
    return Wanted(str(meta["name"]), str(meta["version"]), str(chosen), meta.get("digest"))


def _golden(folder: Path, variant: str) -> tuple[dict[str, Any], list[float]] | None:
    """Return a golden row and its published scores, rather one without missing values; ``None`` where there is none."""
    try:
        document = json.loads((folder / "golden.json").read_bytes())
        pairs = list(zip(document["inputs"], document["outputs"].get(variant, []), strict=False))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedArtifact(f"golden.json cannot be read: {error}", where=str(folder)) from error
    whole = [pair for pair in pairs if None not in pair[0].values()]
    return next(iter(whole or pairs), None)


def _verify(client: ServiceClient, wanted: Wanted, golden: tuple[dict[str, Any], list[float]] | None) -> float:
    """Look whether the service really serves the version and answers a golden row as published.

    Returns:
        Seconds of one prediction over HTTP.

    Raises:
        DeployRejected: it does not.
    """
    served = client.serves(wanted.name) or {}
    found = (str(served.get("version")), served.get("variant"))
    if found != (wanted.version, wanted.variant):
        raise DeployRejected(
            f"the service says it serves version {found[0]} ({found[1]}), wanted was {wanted.version} "
            f"({wanted.variant}): somebody else deploys to it at the same time",
            where=client.url,
        )
    if golden is None:
        raise DeployRejected(f"golden.json has no rows for the variant {wanted.variant}", where=client.url)
    row, expected = golden
    start = time.perf_counter()
    answer = client.predict(wanted.name, [row])
    seconds = time.perf_counter() - start
    scores = (answer.get("probabilities") or [answer.get("predictions")])[0]
    if not _close(scores, expected):
        raise DeployRejected(f"a golden row got {scores}, published was {expected}", where=client.url)
    return seconds


def _close(scores: Any, expected: list[float]) -> bool:
    if not isinstance(scores, list) or len(scores) != len(expected):
        return False
    pairs = zip(scores, expected, strict=True)
    return all(s is not None and abs(s - e) <= TOLERANCE * (1 + abs(e)) for s, e in pairs)


def _undone(client: ServiceClient, wanted: Wanted, answer: dict[str, Any], error: DeployRejected) -> DeployRejected:
    """Take back a swap that happened but did not prove itself; return what to raise."""
    served = client.serves(wanted.name) or {}
    if not answer.get("changed") or str(served.get("version")) != wanted.version:
        return error
    if answer.get("previous"):
        back = client.rollback(wanted.name)["model"]
        done = f"the service is back at version {back['version']} ({back['variant']})"
    else:
        client.remove(wanted.name)
        done = "the service no longer serves it; there was no version before"
    return DeployRejected(f"{error.message}; {done}", where=error.where, hint=error.hint)


def rejected(error: DeployRejected, wanted: Wanted, tracking_uri: str) -> DeployRejected:
    """Put its aliases back where they were; return what to raise, which says what was put back."""
    try:
        done = put_aliases_back(tracking_uri, wanted)
    except EdgewrightError as failure:
        log.exception("the aliases could not be put back")
        done = f"its aliases could not be put back: {failure.message}"
    return DeployRejected(
        f"{wanted.name} version {wanted.version} ({wanted.variant}) was refused: {error.message}; {done}",
        where=error.where,
        hint=error.hint,
    )


def put_aliases_back(tracking_uri: str, wanted: Wanted) -> str:
    """Move the aliases of a refused version to the versions before; return what was done, in words.

    An alias that points elsewhere by now stays: somebody published a newer version.
    """
    if not tracking_uri:
        return "the run has no registry, so no alias was moved"
    from edgewright.registry import Registry

    registry = Registry(tracking_uri)
    aliases = registry.version(wanted.name, wanted.version).aliases
    own = [alias for alias in aliases if alias != "previous" and not alias.startswith("previous-")]
    if not own:
        return "no alias points to it, so the registry is as it was"
    return "; ".join(_put_back(registry, wanted, alias) for alias in own)


def _put_back(registry: Registry, wanted: Wanted, alias: str) -> str:
    from edgewright.registry import previous_of

    name = wanted.name
    before = registry.by_alias(name, previous_of(alias))
    if before is None or before.version == wanted.version:
        return f"the alias {alias} stays with it, because there is no version before"
    moves = registry.history(name, alias)
    registry.set_alias(name, alias, before.version, by="deploy", why=f"a service refused version {wanted.version}")
    # "previous" means again what it meant before the refused version was published, not the refused version
    registry.delete_alias(name, previous_of(alias))
    earlier = next((move["from"] for move in moves if move.get("to") == before.version and move.get("from")), None)
    if earlier and earlier != wanted.version:
        with contextlib.suppress(NotFound):
            registry.set_alias(name, previous_of(alias), earlier, by="deploy", why="the version after it was refused")
    return f"the alias {alias} is back at version {before.version}"
