"""What an erasure cannot take back: models that learnt from the rows, predictions elsewhere, and documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.erasures import ROOT
from edgewright.privacy.findings import Erasure, Finding
from edgewright.privacy.matcher import Matcher
from edgewright.privacy.search import holds, results

_EVENTS = "a batch of events: later runs leave these rows out, and edgewright gc removes it when its run is old"
_SEARCHED_ALREADY = (f"{ROOT}/", "artifacts/", "increments/", "locks/", "cache/")


def add_models(store: ArtifactStore, gone: set[str], report: Erasure) -> None:
    """List every model that was made from erased artifacts, and every release that holds one of these."""
    tasks = [(folder, result, set(_digests(store.read_json(f"{folder}/request.json")))) for folder, result in
             results(store)]  # fmt: skip
    tainted, listed, grows = set(gone), set(), True
    while grows:
        grows = False
        for folder, result, inputs in tasks:
            if not inputs & tainted:
                continue
            for ref in result["outputs"].values():
                if ref["kind"] in ("model", "bundle") and ref["sha256"] not in listed:
                    listed.add(ref["sha256"])
                    tainted.add(ref["sha256"])
                    grows = True
                    report.kept.append(_model(folder, result, ref))


def _model(folder: str, result: dict[str, Any], ref: dict[str, Any]) -> Finding:
    _, dag_id, run_id, task = folder.split("/")
    name, version = result["tags"].get("model_name"), result["tags"].get("model_version")
    registered = f" (registered: {name} version {version})" if name and version else ""
    why = "what a model has learnt cannot be taken out of it: train it again from the new version, then retire this one"
    details = {"dag_id": dag_id, "run_id": run_id, "task": task}
    return Finding("model", f"{ref['kind']} {ref['sha256']}{registered}", 1, why, details)


def add_predictions(store: ArtifactStore, report: Erasure) -> None:
    """List where batch scoring wrote: its files carry the rows' own ids, and lie outside of the store."""
    places: dict[str, int] = {}
    for _, result in results(store):
        place = result["tags"].get("predictions") if result["step"] == "score" else None
        if place:
            places[place] = places.get(place, 0) + 1
    for place, runs in sorted(places.items()):
        why = "not searched: predictions and _rejected/ belong to whoever asked for them"
        report.kept.append(Finding("predictions", place, runs, why))


def add_documents(store: ArtifactStore, report: Erasure, matcher: Matcher) -> None:
    """List documents of the store in which the person stands: batches of events, params of runs."""
    keys = [key for key in store.list_keys("") if not key.startswith(_SEARCHED_ALREADY)]
    report.searched["documents"] = len(keys)
    for key in keys:
        if key.startswith("events/") and key.endswith(".jsonl"):
            with store.open(key) as file:
                messages = sum(matcher.is_value(line) for line in file)
            if messages:
                report.kept.append(Finding("document", key, messages, _EVENTS))
        elif holds(store, key, report.subject):
            why = "a document of a run, which edgewright gc removes with the run"
            report.kept.append(Finding("document", key, 1, why))


def personal_fields(store: ArtifactStore) -> set[str]:
    """Return the names of all columns that a pipeline's ``personal:`` makes pseudonyms of."""
    found: set[str] = set()
    for folder, result in results(store):
        if result["step"] == "ingest":
            config = (store.read_json(f"{folder}/request.json") or {}).get("config", {})
            found |= {name for name, how in (config.get("personal") or {}).items() if how == "token"}
    return found


def _digests(value: Any) -> Iterator[str]:
    """Yield the digests of all references in a document."""
    if isinstance(value, dict):
        if {"kind", "uri", "sha256"} <= set(value):
            yield value["sha256"]
        for item in value.values():
            yield from _digests(item)
    elif isinstance(value, list):
        for item in value:
            yield from _digests(item)
