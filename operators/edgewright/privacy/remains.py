"""What an erasure cannot take back: models that learnt from the rows, and documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.erasures import ROOT
from edgewright.privacy.findings import Erasure, Finding
from edgewright.privacy.search import holds, results

_SEARCHED_ALREADY = (f"{ROOT}/", "artifacts/", "increments/", "locks/", "cache/", "scores/")


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


def add_documents(store: ArtifactStore, report: Erasure) -> None:
    """List documents of the store in which the person stands: params of runs, for example."""
    keys = [key for key in store.list_keys("") if not key.startswith(_SEARCHED_ALREADY) and not _is_payload(key)]
    report.searched["documents"] = len(keys)
    for key in keys:
        if holds(store, key, report.subject):
            why = "a document of a run, which edgewright gc removes with the run"
            report.kept.append(Finding("document", key, 1, why))


def _is_payload(key: str) -> bool:
    """Whether a file is looked at with the batches of events."""
    parts = key.split("/")
    return parts[0] == "events" and len(parts) > 4 and parts[3] in ("data", "dead", "objects")


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
