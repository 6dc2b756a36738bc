"""The champion of the registry, measured on the same rows as its challenger."""

from __future__ import annotations

import json
import logging
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import DataError, EdgewrightError, SystemFault, UserFault
from edgewright.spec.steps.evaluate import EvaluateConfig
from edgewright.steps.context import StepContext

if TYPE_CHECKING:
    from edgewright.steps.models import LoadedModel

log = logging.getLogger("edgewright.steps")


@dataclass(frozen=True)
class Champion:
    """A registered version that holds the alias ``champion``.

    Attributes:
        name: Registered model.
        version: Its version.
        digest: Digest of the release.
        handle: The registry's own object, for the download.
    """

    name: str
    version: str
    digest: str
    handle: Any


@dataclass(frozen=True)
class Search:
    """What looking for a champion gave.

    Attributes:
        champion: The champion, or ``None``.
        note: Why there is none.
    """

    champion: Champion | None
    note: str = ""


# The cache key and the measurement must speak of the same version, though the alias may move between the two.
_FOUND: weakref.WeakKeyDictionary[StepContext, Search] = weakref.WeakKeyDictionary()


def find_champion(config: EvaluateConfig, context: StepContext) -> Search:
    """Return the champion to compare with; asked once a task.

    Raises:
        Unavailable: the registry does not answer, and a gate needs it.
    """
    if context not in _FOUND:
        _FOUND[context] = _find(config, context)
    return _FOUND[context]


def _find(config: EvaluateConfig, context: StepContext) -> Search:
    name = config.champion or context.request.registered_model
    if not name:
        return Search(None, "this pipeline publishes no model, so there is no champion")
    if not context.request.tracking_uri:
        return Search(None, "no registry here, so there is no champion")
    from edgewright.registry import Registry

    try:
        version = Registry(context.request.tracking_uri).champion(name)
    except EdgewrightError:
        if compares(config):
            raise
        log.warning("the registry does not answer; the report goes without the champion")
        return Search(None, "the registry did not answer")
    if version is None:
        return Search(None, "no champion yet")
    return Search(Champion(name, str(version.version), version.digest, version))


def state(config: EvaluateConfig, context: StepContext) -> dict[str, Any] | None:
    """Return the champion that the result depends on, for the cache key."""
    try:
        found = find_champion(config, context)
    except SystemFault:
        return None  # run() says the same, with the task's own words around it
    if found.champion is None:
        return {"champion": None} if found.note != "the registry did not answer" else None
    return {
        "champion": {
            "name": found.champion.name,
            "version": found.champion.version,
            "digest": found.champion.digest,
        }
    }


def compares(config: EvaluateConfig) -> bool:
    """Whether a gate compares with the champion."""
    return any(metric.endswith("_vs_champion") for metric in config.gates)


def load_champion(champion: Champion, context: StepContext) -> LoadedModel:
    """Download a champion's release and load its float ONNX variant, else its default variant.

    Raises:
        DataError: the release has no variant that runs here.
    """
    from edgewright.registry import Registry
    from edgewright.steps.models import load_model

    folder = Registry(context.request.tracking_uri).download(champion.handle, context.folder("champion"))
    manifest = json.loads((folder / "manifest.json").read_text())
    return load_model(_variant(folder, manifest, f"{champion.name} version {champion.version}"))


def _variant(folder: Path, manifest: dict[str, Any], what: str) -> Path:
    for name in ("onnx", manifest.get("default_variant")):
        place = folder / "variants" / str(name)
        # never a pickle: somebody else may have registered it
        if name and (place / "model.onnx").is_file():
            return place
    raise DataError(
        f"the champion {what} has no ONNX variant, so it cannot be measured here",
        hint="publish one beside it: a quantize task with target: onnx",
    )


def fits(model: LoadedModel, problem: str, columns: list[str], what: str) -> UserFault | None:
    """Return why a champion cannot be asked about some rows, or ``None``."""
    absent = [name for name in model.document.feature_names if name not in columns]
    hint = "publish under another name, or leave out the gates *_vs_champion for the run that changes the columns"
    if model.document.problem != problem:
        return DataError(f"the champion {what} is for {model.document.problem}, this model for {problem}", hint=hint)
    if absent:
        return DataError(f"the champion {what} needs {', '.join(absent)}, which the data do not have", hint=hint)
    return None
