"""Memoisation: a step whose key is known need not run again, and ``why`` says what changed when it had to.

The key covers the step and its version, its configuration, the digests of its inputs, the user's code, the libraries,
the image, and whatever else the step reads (its module's ``state``: a source file's digest, the champion's version).
A step whose state cannot be digested is not cached. An entry is used only after every file of its artifacts was
compared with its sha256.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright.artifacts import ArtifactStore, digest_json
from edgewright.artifacts.refs import ArtifactRef
from edgewright.errors import DamagedArtifact, StoreError
from edgewright.spec.steps import StepConfig, StepSpec
from edgewright.steps.code import code_digests
from edgewright.steps.contract import Identity, StepRequest, StepResult
from edgewright.steps.environment import describe, installed

Components = dict[str, Any]


def key_components(spec: StepSpec, config: StepConfig, request: StepRequest, state: dict[str, Any]) -> Components:
    """Return everything that the key covers, readable, so that two keys can be compared part by part."""
    code: dict[str, str] = {}
    if request.source is not None:
        code = code_digests(Path(request.source.folder), config.entry_points(), request.source.document)
    return {
        "step": spec.name,
        "step_version": spec.version,
        "config": _without_references(config.model_dump(mode="json", exclude=set(config.ASIDE))),
        "inputs": {place: ref.sha256 for place, ref in config.references().items()},
        "code": code,
        "environment": describe(spec.libraries),
        "image": request.image,
        "state": state,
    }


def _without_references(value: Any) -> Any:
    """Replace embedded references by nothing: their digests stand under ``inputs``, their addresses do not matter."""
    if isinstance(value, dict):
        if {"kind", "uri", "sha256"} <= set(value):
            return "(input)"
        return {key: _without_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_references(item) for item in value]
    return value


def key_of(components: Components) -> str:
    """Return the cache key of its components."""
    return digest_json(components)


def record_key(store: ArtifactStore, identity: Identity, components: Components) -> None:
    """Keep a run's key components, and once per environment the list of what was installed."""
    store.write_json(f"{identity.key}/key.json", components)
    packages = components["environment"].get("packages")
    if packages and store.read_json(f"environments/{packages}.json") is None:
        store.write_json(f"environments/{packages}.json", installed())


def _entry_key(key: str) -> str:
    return f"cache/{key[:2]}/{key}.json"


def look_up(store: ArtifactStore, key: str) -> tuple[StepResult | None, str]:
    """Return the result that answers to a key, or ``None`` and the reason in words."""
    try:
        document = store.read_json(_entry_key(key))
        if document is None:
            return None, "nothing was made from these inputs before"
        result = StepResult.model_validate(document)
        for name, ref in result.outputs.items():
            _check(store, name, ref)
    except (DamagedArtifact, StoreError) as error:
        return None, f"the earlier result cannot be used: {error.message}"
    except ValueError:
        return None, "the earlier result cannot be read"
    return result, ""


def _check(store: ArtifactStore, name: str, ref: ArtifactRef) -> None:
    try:
        store.fetch(ref)
    except DamagedArtifact:
        store.discard_local_copy(ref)
        raise DamagedArtifact(f"its artifact {name} is damaged") from None


def remember(store: ArtifactStore, key: str, result: StepResult) -> None:
    """Keep a successful result for later runs."""
    store.write_json(_entry_key(key), result.model_dump(mode="json"))


def differences(old: Components, new: Components) -> list[tuple[str, Any, Any]]:
    """Return ``(place, old value, new value)`` for every part in which two keys differ."""
    found: list[tuple[str, Any, Any]] = []
    _compare("", old, new, found)
    return found


def _compare(place: str, old: Any, new: Any, found: list[tuple[str, Any, Any]]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            _compare(f"{place}.{key}" if place else key, old.get(key), new.get(key), found)
    elif old != new:
        found.append((place, old, new))
